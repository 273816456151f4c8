//! Which errors are the caller's: the command ends with code 2 then, and with 1 where a run failed.

use crate::config::ConfigErrors;
use crate::feed::DataError;
use crate::refused::Refused;
use crate::usage::UsageError;
use aflora_models::Error as ModelError;

/// Whether an error is a wrong call, a wrong configuration or missing data, and not the run's own
/// failure or a damaged file.
pub fn is_usage(error: &anyhow::Error) -> bool {
    let checked = error.downcast_ref::<Refused>();
    checked.is_some_and(|refused| refused.usage)
        || error.is::<ConfigErrors>()
        || error.is::<UsageError>()
        || error.downcast_ref().is_some_and(aflora_record::Error::is_usage)
        || error.downcast_ref().is_some_and(aflora_report::Error::is_usage)
        || matches!(error.downcast_ref(), Some(aflora_core::Error::Setting { .. }))
        || matches!(
            error.downcast_ref(),
            Some(DataError::NotFound { .. } | DataError::Incomplete { .. })
        )
        || matches!(
            error.downcast_ref(),
            Some(
                ModelError::Targets(_)
                    | ModelError::UnknownBackbone { .. }
                    | ModelError::TrainModules(_)
                    | ModelError::NoHead { .. }
                    | ModelError::Unbuilt(_)
                    | ModelError::Precision { .. }
                    | ModelError::NoWeights { .. }
                    | ModelError::NoTokenizer { .. }
                    | ModelError::Core(
                        aflora_core::Error::Setting { .. } | aflora_core::Error::Quantised(_)
                    )
            )
        )
}
