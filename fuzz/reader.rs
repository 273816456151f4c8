//! One binary for all targets: `AFLORA_TARGET` names the one to run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static TARGET: OnceLock<&'static aflora_fuzz::FuzzTarget> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("AFLORA_TARGET").unwrap_or_default();
        let target = aflora_fuzz::find(&name).expect("AFLORA_TARGET names a target");
        TARGET.get_or_init(|| target);
        // libfuzzer-sys would end the process at every panic, those too that a reader catches
        // where a library panics on a damaged file. What gets out of a target ends it anyway.
        std::panic::set_hook(Box::new(|info| {
            if std::env::var_os("AFLORA_PANICS").is_some() {
                eprintln!("{info}");
            }
        }));
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
