//! The `aflora` command.

/// The loader calls what stands in this section before any library begins.
#[cfg(target_os = "linux")]
#[used]
#[link_section = ".preinit_array"]
static BEGIN: aflora_run::Begin = aflora_run::begin;

fn main() {
    aflora_run::leave(aflora_run::main(std::env::args_os()))
}
