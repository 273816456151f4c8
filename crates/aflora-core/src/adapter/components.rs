//! Rank components: a row of A with the column of B, and whatever stands between them.

use super::tensor::AdapterTensor;
use crate::optim::Group;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// `tensors` with only those components whose `factor` (`[rank]`, in any shape) is not zero. There
/// may be none: a layer of rank 0, as PEFT has it too.
pub(super) fn in_use(tensors: Vec<AdapterTensor>, factor: &Tensor) -> Vec<AdapterTensor> {
    let kept = tch::no_grad(|| factor.reshape([-1]).ne(0.0).nonzero().squeeze_dim(1));
    let select = |t: AdapterTensor| match t.spec.rank_dim {
        Some(dim) => AdapterTensor { tensor: t.tensor.detach().index_select(dim, &kept), ..t },
        None => t,
    };
    tensors.into_iter().map(select).collect()
}

/// The mean of `flat` (laid out like the values of `group`, a group of projection matrices) over
/// each row of A plus that over each column of B, by the layer's name: `[rank]` each.
pub(super) fn means(group: &Group, flat: &Tensor) -> BTreeMap<String, Tensor> {
    let mut means: BTreeMap<String, Tensor> = BTreeMap::new();
    for (parameter, slice) in group.parameters().zip(group.slices(flat)) {
        let Some((site, rank_dim)) = parameter.components() else { continue };
        let mean = slice.view_as(&parameter.leaf).mean_dim(1 - rank_dim, false, Kind::Float);
        let sum = match means.remove(&site.name) {
            Some(other) => other + mean,
            None => mean,
        };
        means.insert(site.name.clone(), sum);
    }
    means
}
