//! What stands before the next token of each text, where a rule asks for it.

use tch::{Device, Kind, Tensor};

/// The tokens of some texts, prompt and all, on the model's device.
#[derive(Debug)]
pub(super) struct Past {
    /// `[texts, capacity]`; what is behind a text's length does not count.
    ids: Tensor,
    /// How many tokens there are, `[texts]`.
    lengths: Tensor,
}

impl Past {
    /// Of so many texts without a token.
    pub fn new(texts: i64, capacity: i64, device: Device) -> Self {
        let like = (Kind::Int64, device);
        Past { ids: Tensor::zeros([texts, capacity], like), lengths: Tensor::zeros([texts], like) }
    }

    /// Puts other texts, of `ids`, `[some, length]`, and `lengths`, `[some]`, in the places `rows`,
    /// `[some]`.
    pub fn put(&self, rows: &Tensor, ids: &Tensor, lengths: &Tensor) {
        let _ = self.ids.narrow(1, 0, ids.size()[1]).index_copy_(0, rows, ids);
        let _ = self.lengths.shallow_clone().index_copy_(0, rows, lengths);
    }

    /// Puts the texts of `other` in the places `rows`, `[texts of other]`.
    pub fn replace(&self, rows: &Tensor, other: &Past) {
        self.put(rows, &other.ids, &other.lengths);
    }

    /// Adds a token to each text, `[texts]`, in place.
    pub fn push(&self, tokens: &Tensor) {
        let last = self.ids.size()[1] - 1;
        let places = self.lengths.clamp_max(last).unsqueeze(1);
        let _ = self.ids.shallow_clone().scatter_(1, &places, &tokens.unsqueeze(1));
        let _ = self.lengths.shallow_clone().g_add_scalar_(1);
    }

    /// The first texts, in the same place.
    pub fn first(&self, texts: i64) -> Past {
        Past { ids: self.ids.narrow(0, 0, texts), lengths: self.lengths.narrow(0, 0, texts) }
    }

    /// A copy of these texts, `[some]`.
    pub fn of(&self, rows: &Tensor) -> Past {
        Past { ids: self.ids.index_select(0, rows), lengths: self.lengths.index_select(0, rows) }
    }

    /// Which of `vocabulary` tokens are in a text, `[texts, vocabulary]`.
    pub fn tokens(&self, vocabulary: i64) -> Tensor {
        let places = Tensor::arange(self.ids.size()[1], (Kind::Int64, self.ids.device()));
        among(&self.ids, &places.lt_tensor(&self.lengths.unsqueeze(1)), vocabulary)
    }

    /// Which of `vocabulary` tokens would make a text's last `size` tokens a run that was there
    /// before, `[texts, vocabulary]`.
    pub fn repeating(&self, size: i64, vocabulary: i64) -> Tensor {
        let (texts, capacity) = self.ids.size2().unwrap_or_default();
        if size > capacity {
            return Tensor::zeros([texts, vocabulary], (Kind::Bool, self.ids.device()));
        }
        let steps = |n: i64| Tensor::arange(n, (Kind::Int64, self.ids.device()));
        let lengths = self.lengths.unsqueeze(1);
        // The run that the next token would end, without it.
        let begun = (&lengths - (size - 1) + steps(size - 1)).clamp(0, capacity - 1);
        let begun = self.ids.gather(1, &begun, false).unsqueeze(1);
        let runs = self.ids.unfold(1, size, 1);
        let same = runs.narrow(2, 0, size - 1).eq_tensor(&begun).all_dim(2, false);
        let whole = steps(capacity - size + 1).le_tensor(&(&lengths - size));
        among(&runs.select(2, size - 1), &same.logical_and(&whole), vocabulary)
    }
}

/// Which of `vocabulary` tokens are among the `ids` that are `counted`, `[texts, any]` both.
fn among(ids: &Tensor, counted: &Tensor, vocabulary: i64) -> Tensor {
    let counted = counted.logical_and(&ids.lt(vocabulary)).logical_and(&ids.ge(0));
    let ids = ids.clamp(0, vocabulary - 1);
    // Sums, for several places may say of one token; of whole numbers, so in any order the same.
    let none = Tensor::zeros([ids.size()[0], vocabulary], (Kind::Float, ids.device()));
    none.scatter_add(1, &ids, &counted.to_kind(Kind::Float)).gt(0.0)
}
