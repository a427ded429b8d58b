//! Runs the Rust code of the README as doctests. The examples are the other files in this folder.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]
