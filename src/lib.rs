#![doc = "throng"]
#![deny(unsafe_code)]
pub mod error;
pub mod limits;
pub mod mem;
pub mod sys;
mod time;
pub mod ws;
