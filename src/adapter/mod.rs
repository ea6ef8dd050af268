//! Protocols over the topics: commands in, encodings out.
//!
//! Sans-IO like what is below them. The core needs none of them: each is a cargo feature.

pub(crate) mod centrifugo;
