//! `aflora keys`: every key that can be set.

use aflora_run::config;

/// Prints the table.
pub fn keys() {
    print!("{}", config::keys::table());
}
