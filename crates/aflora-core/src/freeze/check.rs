//! What a test found: every matrix with its score, and which of them freeze.

use serde::Serialize;

/// A matrix and its score at a test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixScore {
    /// The parameter's name.
    pub name: String,
    /// Mean of its elements' scores s(t).
    pub score: f64,
    /// Whether it freezes now.
    pub frozen: bool,
}

/// A test of which matrices freeze.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FreezeCheck {
    /// Completed optimiser steps before this one.
    pub step: u64,
    /// r(t), the share of the matrices that should be frozen by now.
    pub ratio: f64,
    /// The score that decided, where one did.
    pub threshold: Option<f64>,
    /// Every matrix that trained up to now.
    pub matrices: Vec<MatrixScore>,
    /// The names of the matrices that were frozen and train again from now on.
    pub thawed: Vec<String>,
}

impl FreezeCheck {
    /// The names of the matrices that freeze now.
    pub fn frozen(&self) -> impl Iterator<Item = &str> {
        self.matrices.iter().filter(|m| m.frozen).map(|m| m.name.as_str())
    }
}
