//! Which errors are the caller's: the command ends with code 2 then, and with 1 where a run failed.

use crate::{check, config, feed};
use aflora_models::Error as ModelError;
use anyhow::Result;
use std::path::Path;

/// A wrong call: what was asked for cannot be done as asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Whether an error is a wrong call, a wrong configuration or missing data, and not the run's own
/// failure or a damaged file.
pub fn is_usage(error: &anyhow::Error) -> bool {
    let checked = error.downcast_ref::<check::Refused>();
    checked.is_some_and(|refused| refused.usage)
        || error.is::<config::ConfigErrors>()
        || error.is::<UsageError>()
        || error.downcast_ref().is_some_and(aflora_record::Error::is_usage)
        || error.downcast_ref().is_some_and(aflora_report::Error::is_usage)
        || matches!(error.downcast_ref(), Some(aflora_core::Error::Setting { .. }))
        || matches!(
            error.downcast_ref(),
            Some(feed::DataError::NotFound { .. } | feed::DataError::Incomplete { .. })
        )
        || matches!(
            error.downcast_ref(),
            Some(
                ModelError::Targets(_)
                    | ModelError::UnknownBackbone { .. }
                    | ModelError::Purpose { .. }
                    | ModelError::Unbuilt(_)
                    | ModelError::Precision { .. }
                    | ModelError::NoWeights { .. }
                    | ModelError::NoTokenizer { .. }
                    | ModelError::Core(aflora_core::Error::Setting { .. })
            )
        )
}

/// Refuses a folder to write to that cannot be made, before anything is done for it.
///
/// # Errors
/// `what` cannot be made at `path`, or nothing in it.
pub fn check_makeable(what: &str, path: &Path) -> Result<()> {
    if let Err(error) = aflora_files::write::check_makeable(path) {
        usage!("{what} {} cannot be made: {error}", path.display());
    }
    Ok(())
}

/// Ends the function with a [`UsageError`].
macro_rules! usage {
    ($($words:tt)*) => {
        return Err($crate::UsageError(format!($($words)*)).into())
    };
}
pub(crate) use usage;
