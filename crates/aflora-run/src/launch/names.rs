//! Names of variables that are our own.

/// What [`start`](super::start) sets for those that it starts: [`HERE`] where these are all that there
/// are.
pub const LAUNCHED: &str = "AFLORA_LAUNCHED";

/// All processes were started here.
pub const HERE: &str = "here";

/// How long the processes wait for each other, in seconds.
pub const TIMEOUT: &str = "AFLORA_WORLD_TIMEOUT";
