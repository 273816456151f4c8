//! The `aflora` command.

fn main() {
    aflora_run::leave(aflora_run::main(std::env::args_os()))
}
