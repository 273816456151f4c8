//! Reports: what they say about results with known numbers, and about everything that can be wrong.

mod charts;
mod classes;
mod escaping;
mod files;
mod front;
mod pages;
mod runs;
mod scores;
mod support;
