pub use tch24::*;
