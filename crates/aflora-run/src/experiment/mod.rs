//! Experiments: grids of runs, and what they found.
//!
//! * [`results`]: what an experiment found, the source of every report

pub mod results;
