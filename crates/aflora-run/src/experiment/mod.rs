//! Experiments: grids of runs, and what they found.
//!
//! * [`definition`]: an experiment file and its profiles, read key by key (`fields`)
//! * [`grid`]: from these to cells, one run each
//! * [`runner`]: runs the cells that have not finished; [`slurm`] lets a cluster do it
//! * [`stored`]: cells that earlier results have already
//! * [`collect`]: what the cells found, from their folders or those results, for
//!   [`aflora_record::results`]

pub mod collect;
pub mod definition;
mod fields;
pub mod grid;
pub mod runner;
pub mod slurm;
pub mod stored;
