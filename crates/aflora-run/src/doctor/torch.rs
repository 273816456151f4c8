//! libtorch, and whether it computes.

use super::finding::{path, Finding};
use crate::device;
use crate::installation::libtorch_by;
use aflora_cuda::machine;
use tch::{Device, Kind, TchError, Tensor};

/// Which libtorch this process runs with.
pub(super) fn libtorch() -> Finding {
    let (version, folder) = (machine::libtorch_version(), machine::libtorch_folder());
    let cuda = folder.as_ref().is_some_and(|folder| folder.join("libtorch_cuda.so").is_file());
    let shown = version.as_deref().unwrap_or("of unknown version");
    let build = if cuda { "for CPU and CUDA" } else { "for CPU" };
    let place = folder.as_ref().map_or("an unknown folder".into(), |at| at.display().to_string());
    let found = format!("{shown}, {build}, in {place}");
    let finding = match machine::libtorch_built_with() {
        Some(built) if version.as_deref() != Some(built) => Finding::less(
            "libtorch",
            format!("{found}; this program was built with {built}"),
            format!(
                "take this one out of LD_LIBRARY_PATH, or put the folder of libtorch {built} before it"
            ),
        ),
        _ => Finding::good("libtorch", found),
    };
    let finding = finding.with("version", version).with("cuda", cuda);
    finding
        .with("folder", folder.as_deref().map(path))
        .with("built_with", machine::libtorch_built_with())
}

/// Whether a device gives the right product of two small matrices.
pub(super) fn computes(on: Device) -> Finding {
    let name = device::describe(on);
    match product(on) {
        Ok(true) => Finding::good("computing", format!("on {name}")),
        Ok(false) => Finding::missing(
            "computing",
            format!("{name} gives a wrong product"),
            "test the machine's memory and processor, and look for another libtorch in \
             LD_LIBRARY_PATH",
        ),
        Err(error) => {
            let error = error.to_string();
            let why = error.lines().next().unwrap_or_default();
            let remedy = match on {
                Device::Cuda(_) => {
                    "use a libtorch made for this GPU, or keep it out with CUDA_VISIBLE_DEVICES"
                        .into()
                }
                _ => format!("set libtorch up anew: {}", libtorch_by(false)),
            };
            Finding::missing("computing", format!("not on {name}: {why}"), remedy)
        }
    }
    .with("device", name)
}

/// Ones times ones of 64 rows and columns: every element is 64, exactly, in fp32 and in bf16.
fn product(on: Device) -> Result<bool, TchError> {
    const SIZE: i64 = 64;
    [Kind::Float, Kind::BFloat16].into_iter().try_fold(true, |right, kind| {
        let ones = Tensor::f_ones([SIZE, SIZE], (kind, on))?;
        let sum = ones.f_matmul(&ones)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        Ok(right && sum == (SIZE * SIZE * SIZE) as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn the_cpu_computes() {
        assert_eq!(computes(Device::Cpu).state, State::Good);
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_and_does_not_panic() {
        let finding = computes(Device::Cuda(99));
        assert_eq!(finding.state, State::Missing);
        assert!(finding.remedy.is_some());
    }
}
