//! Histories of entities: what they are of, what they are made of, what they are held against.
#![allow(dead_code, unused_imports)] // each test uses some of it

pub mod bank;
pub mod chance;
#[path = "../common/mod.rs"]
pub mod common;
mod lives;
pub mod model;
pub mod ops;
pub mod world;
