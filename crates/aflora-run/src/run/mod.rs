//! One run: from a resolved configuration to a finished run folder.
//!
//! [`place`] finds the folder, [`prepare`] looks everything up and refuses what cannot work, both
//! before anything is written; [`train`] is the loop; [`aflora_record`] says what a run
//! leaves behind, [`checkpoint`] what it takes to go on with it.

pub mod batches;
mod chance;
pub mod checkpoint;
pub mod course;
pub mod failure;
pub mod fits;
pub mod folder;
pub mod gradient_log;
mod health;
pub mod lock;
pub mod memory;
pub mod model;
pub mod model_files;
pub mod objective;
mod pace;
pub mod passes;
pub mod place;
pub mod prepare;
pub mod rows;
mod seed;
mod start;
pub mod summary;
pub mod token_cache;
pub mod tokens;
pub mod train;
pub mod update;
