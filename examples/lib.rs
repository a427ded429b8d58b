//! Owns nothing but the README's Rust, so that it is tested. The examples are the files beside this one.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]
