//! How Hugging Face PEFT writes a method down: plain data, which a method's file gives and
//! `aflora-models` reads and writes adapter folders by.

use crate::span::RunLength;
use serde::Serialize;
use std::collections::BTreeMap;

/// A value in PEFT's configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PeftValue {
    /// A boolean.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A floating-point number.
    Number(f64),
    /// A string.
    Text(&'static str),
    /// Lists of booleans by name.
    Flags(BTreeMap<String, Vec<bool>>),
}

/// The type of a setting in PEFT's configuration, with PEFT's default: what a file that leaves it
/// out means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PeftType {
    /// A whole number.
    Whole(i64),
    /// A whole number; a lower one than the default stands for it.
    AtLeast(i64),
    /// A seed, of which PyTorch takes negative ones, too.
    Seed(i64),
    /// A floating-point number.
    Number(f64),
    /// A boolean, `false` by default.
    Switch,
    /// A [span](crate::Span), in steps; none by default.
    Steps,
}

/// A setting that PEFT has, too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeftSetting {
    /// The setting's key in PEFT's configuration.
    pub theirs: &'static str,
    /// The setting's name in the method's own settings here.
    pub ours: &'static str,
    /// Its type in PEFT's configuration, with PEFT's default.
    pub kind: PeftType,
}

impl PeftSetting {
    /// The setting `ours`, which PEFT calls `theirs`.
    pub const fn new(theirs: &'static str, ours: &'static str, kind: PeftType) -> Self {
        PeftSetting { theirs, ours, kind }
    }
}

/// What a key may hold beside what is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Anything: it is read elsewhere, or says nothing about a trained adapter.
    Anything,
    /// One of these values, as JSON.
    Values(&'static [&'static str]),
    /// One of these values, as JSON, and why no other.
    Unless(&'static [&'static str], &'static str),
}

impl Allowed {
    /// A switch that is built, or that says nothing about a trained adapter.
    pub const EITHER_WAY: Allowed = Allowed::Values(&["true"]);
}

/// Keys with what each may hold.
pub type AllowedKeys = &'static [(&'static str, Allowed)];

/// A method as PEFT has it.
///
/// PEFT gains switches with every version, and most change what an adapter computes, or even the
/// weights that it is attached to. So whatever is not listed here, or of every method, must be off
/// in a folder.
#[derive(Debug)]
pub struct Peft {
    /// Its `peft_type`.
    pub peft_type: &'static str,
    /// Switches that tell it from other methods of that type: written, and on where it is read.
    pub switches: &'static [&'static str],
    /// The settings that PEFT has, too.
    pub settings: &'static [PeftSetting],
    /// Settings that PEFT has one value for; with another, the method is not PEFT's.
    pub fixed: &'static [(&'static str, PeftValue)],
    /// What is written besides.
    pub written: &'static [(&'static str, PeftValue)],
    /// What else a folder may say.
    pub allowed: &'static [AllowedKeys],
}

/// What is known of the adapters that an adapter folder is written for.
#[derive(Debug, Clone, Copy)]
pub struct WrittenAdapters<'a> {
    /// The run that made them, where it is known.
    pub length: Option<RunLength>,
    /// The names of their layers, with the components of each that are left.
    pub ranks: &'a [(String, i64)],
}
