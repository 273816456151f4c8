//! One run: from a resolved configuration to a finished run folder.
//!
//! [`location`] finds the folder, [`prepare`] looks everything up and refuses what cannot work, both
//! before anything is written; [`train`] is the loop; [`aflora_record`] says what a run
//! leaves behind, [`checkpoint`] what it takes to go on with it.

pub mod batches;
mod chance;
pub mod checkpoint;
mod digests;
pub mod eval_points;
pub mod failure;
pub mod fits;
pub mod folder;
pub mod gradient_log;
mod health;
pub mod location;
pub mod lock;
pub mod loop_state;
pub mod memory;
pub mod model;
pub mod model_files;
pub mod objective;
mod pace;
mod packing;
pub mod passes;
pub mod prepare;
pub mod rows;
mod seed;
mod shared;
mod start;
pub mod summary;
mod test;
pub mod token_cache;
pub mod tokens;
pub mod train;
pub mod update;
