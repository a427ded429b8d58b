//! Owns nothing but the README's Rust, so that it is tested. The examples are the files beside this one.
#![doc = include_str!("../README.md")]
