//! The configuration of a run: YAML building blocks, one run file, `key=value` overrides.
//!
//! A run file names a task, a model and a method. Each is a block: a file of the folders
//! `tasks/`, `models/` and `methods/`, which lie beside the run file or in the project's
//! `configs`. (The project is the nearest folder at or above the run file that has
//! `configs/tasks`; the working folder where there is none. A run writes down which it was, so
//! that its own configuration finds the same model from anywhere.) A block may also be named by a path
//! ending in `.yaml`, or be written out in the run file itself; a model also by the folder of its
//! files (`model=../my-bert`), as Hugging Face lays them out.
//!
//! Settings of the run are laid over one another, later ones winning:
//!
//! 1. built-in defaults
//! 2. `run:` of the model
//! 3. `run:` of the task (the paper's settings)
//! 4. `run_for: {<model>: …}` of the task
//! 5. `run:` of the method: last of the blocks, because a task's rates are AFLoRA's, whatever
//!    the model, and a method that needs others needs them on every task
//! 6. the run file
//! 7. `key=value` on the command line: `epochs=3`, `task=mrpc` to name a block, `method.rank=8`
//!    to change a key in it; the value is YAML
//!
//! Every problem in all of these is collected and told at once, with its place.
//!
//! * [`run_settings`], [`settings`], `choice`, `every`: what can be set, each declared once, with its
//!   words, default and range; [`schema`] reads them off, [`keys`] lists all, [`help`] makes texts
//! * `yaml`, `tree`: YAML, and what it sets: a list of settings that know where they stand
//! * `blocks`: finding and reading blocks
//! * [`own_data`], `own_files`, `own_hub`: a task that is named by its files of rows, or by a data set
//!   of the hub
//! * `model_folder`: a model that is named by the folder of its files
//! * `from_adapter`: a run that goes on from an adapter's folder
//! * `layers`: laying settings over defaults, trying each
//! * [`resolve`]: from a run file and overrides to a [`Resolved`] configuration
//! * `difference`: where two configurations differ
//! * [`problem`], `words`: what is wrong, shown and said

mod block;
mod blocks;
mod choice;
mod difference;
mod every;
mod from_adapter;
pub mod help;
pub mod keys;
mod layers;
mod model_folder;
pub mod own_data;
mod own_files;
mod own_hub;
pub mod problem;
pub mod resolve;
pub mod run_settings;
pub mod schema;
pub mod settings;
mod shipped;
pub(crate) mod tree;
pub(crate) mod words;
mod yaml;

pub use choice::{DeviceChoice, Precision};
pub use every::Every;
pub use problem::{ConfigErrors, Problem};
pub use resolve::{load, load_all, Resolved};
pub use run_settings::RunSettings;
pub use settings::{ModelConfig, WeightsFrom};
