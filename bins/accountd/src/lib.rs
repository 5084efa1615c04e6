//! accountd

pub mod store;
