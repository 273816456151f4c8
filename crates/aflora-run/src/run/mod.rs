//! One run: from a resolved configuration to a finished run folder.
//!
//! [`prepare`] looks everything up and refuses what cannot work, before anything is written;
//! [`train`] is the loop; [`folder`] says what a run leaves behind.

pub mod batches;
pub mod folder;
pub mod gradient_log;
pub mod model_files;
pub mod objective;
pub mod prepare;
pub mod recorder;
pub mod rows;
pub mod summary;
pub mod tensorboard;
pub mod tokens;
pub mod train;
