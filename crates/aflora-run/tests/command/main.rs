//! The `aflora` command, as a user calls it.
//!
//! It is one program, since each is linked with all of libtorch's interface, and at the end of each a
//! core waits for the other.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod assets;
mod chat;
mod combine;
mod end_to_end;
mod evaluate;
mod experiment;
mod finished;
mod forged;
mod generate;
mod inputs;
mod judging;
mod kill;
mod kinds;
mod labels;
mod loss_series;
mod machine;
mod models;
mod own_data;
mod own_task;
mod predict;
mod resume;
mod short_runs;
mod shown;
mod training;
mod validate;
mod writing;
