//! From what should be to what is.
pub mod table;
