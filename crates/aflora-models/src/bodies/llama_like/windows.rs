//! Which layers of a model see a window only.

use super::description::Description;
use crate::config_file::ConfigFile;
use crate::Result;

impl Description {
    /// The `sliding_window` of a file, if it has one; `usual` where the key is not there.
    ///
    /// # Errors
    /// It is no positive whole number.
    pub fn window(file: &ConfigFile, usual: Option<i64>) -> Result<Option<i64>> {
        match file.keys().get("sliding_window") {
            None => Ok(usual),
            Some(value) if value.is_null() => Ok(None),
            Some(_) => file.size("sliding_window").map(Some),
        }
    }

    /// Gives `window` to the layers that `layer_types` calls so, or, without that key, to those for
    /// whose number `usual` says so. Gives for each layer whether it is one of these.
    ///
    /// # Errors
    /// `layer_types` has another number of layers, or names another type.
    pub fn windows_by_type(
        &mut self,
        file: &ConfigFile,
        window: Option<i64>,
        usual: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>> {
        let count = self.layers.len();
        let types: Vec<String> = file.parse_or("layer_types", Vec::new())?;
        let known = |kind: &String| matches!(kind.as_str(), "full_attention" | "sliding_attention");
        if let Some(other) = types.iter().find(|kind| !known(kind)) {
            return Err(file.problem(format!(
                "`layer_types` has `{other}`, which is not built; `full_attention` and \
                 `sliding_attention` are"
            )));
        }
        let sliding: Vec<bool> = match types.len() {
            0 => (0..count).map(usual).collect(),
            _ => types.iter().map(|kind| kind == "sliding_attention").collect(),
        };
        if sliding.len() != count {
            return Err(file.problem(format!(
                "`layer_types` is of {} layers, but `num_hidden_layers` is {count}",
                sliding.len()
            )));
        }
        for (layer, slides) in self.layers.iter_mut().zip(&sliding) {
            layer.window = window.filter(|_| *slides);
        }
        Ok(sliding)
    }
}
