//! Attention through libtorch's fused kernels, with a cache of keys and values.

use super::linear;
use super::rotary::Rotation;
use super::slots::SlotKeys;
use crate::Documents;
use aflora_core::kernels;
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor};

/// The attention mask: which keys a query sees.
#[derive(Debug)]
pub(crate) enum Seen {
    /// All of them; with a mask, `[batch, 1 or heads, 1 or queries, keys]`, those that are true in
    /// it, or, if it has numbers, all with these added to their scores.
    All(Option<Tensor>),
    /// Its own token's and those before. Where padding stands before a text, a mask says so of
    /// every query: it is true where a key is seen, `[batch, 1, queries, keys]`.
    Causal(Option<Tensor>),
    /// Of one query a text, those up to its own token's, at `positions`, `[batch, 1]`: `mask` is true
    /// there, `[batch, 1, 1, keys]`.
    UpTo { positions: Tensor, mask: Tensor },
    /// Those of its own token's document, up to that.
    InDocuments(SeenDocuments),
    /// Those that are tokens, and not padding.
    Tokens(SeenTokens),
}

/// Which keys are tokens, and the same in numbers, made where attention needs those.
#[derive(Debug)]
pub(crate) struct SeenTokens {
    /// `[batch, 1, 1, keys]`.
    mask: Tensor,
    added: OnceCell<Tensor>,
}

impl SeenTokens {
    /// What is added to the scores of each key, in `kind`, which is the same whenever this is asked: 0, and very
    /// little where it is padding, `[batch, keys]`.
    fn added(&self, kind: Kind) -> &Tensor {
        self.added.get_or_init(|| {
            let padding = self.mask.logical_not().flatten(0, 2).to_kind(kind);
            padding * f64::from(f32::MIN / 2.0)
        })
    }
}

/// Documents, and the mask that says the same, made where attention needs one.
#[derive(Debug)]
pub(crate) struct SeenDocuments {
    documents: Documents,
    mask: OnceCell<Tensor>,
}

impl SeenDocuments {
    fn mask(&self) -> &Tensor {
        self.mask.get_or_init(|| self.documents.causal_mask())
    }
}

impl Seen {
    /// Of one query a text at `positions`, `[batch, 1]`, among `keys` keys.
    pub fn up_to(positions: &Tensor, keys: i64) -> Self {
        let places = Tensor::arange(keys, (Kind::Int64, positions.device()));
        let mask = places.le_tensor(positions).unsqueeze(1).unsqueeze(1);
        Seen::UpTo { positions: positions.shallow_clone(), mask }
    }

    /// Of a whole batch of documents.
    pub fn in_documents(documents: &Documents) -> Self {
        let documents = documents.map(Tensor::shallow_clone);
        Seen::InDocuments(SeenDocuments { documents, mask: OnceCell::new() })
    }

    /// Of a batch that is padded, by its attention mask, `[batch, keys]`.
    pub fn tokens(attention_mask: &Tensor) -> Self {
        let mask = attention_mask.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1);
        Seen::Tokens(SeenTokens { mask, added: OnceCell::new() })
    }

    fn mask(&self) -> Option<&Tensor> {
        match self {
            Seen::Tokens(tokens) => Some(&tokens.mask),
            Seen::All(mask) | Seen::Causal(mask) => mask.as_ref(),
            Seen::UpTo { mask, .. } => Some(mask),
            Seen::InDocuments(documents) => Some(documents.mask()),
        }
    }

    /// The mask, in the shape that its variant says, to be reordered with the texts.
    pub fn mask_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Seen::All(mask) | Seen::Causal(mask) => mask.as_mut(),
            Seen::UpTo { mask, .. } => Some(mask),
            // Nothing is written behind several documents.
            Seen::InDocuments(_) => None,
            Seen::Tokens(tokens) => {
                tokens.added.take();
                Some(&mut tokens.mask)
            }
        }
    }
}

/// What every block of one forward pass reads beside its input: positions, mask and mode.
#[derive(Debug)]
pub(crate) struct ForwardContext {
    /// Cosines and sines of the tokens' positions, where the network rotates by them: one for each
    /// way in which its blocks do.
    pub rotations: Vec<Rotation>,
    pub seen: Seen,
    pub train: bool,
}

/// The keys and values of one block for the tokens read so far.
#[derive(Debug)]
pub(crate) enum KeyValues {
    /// Of texts that are read in step.
    Together(JointKeys),
    /// Of texts that are read each for itself.
    Slots(SlotKeys),
}

impl KeyValues {
    /// Of texts that are read in step, with room for so many tokens.
    pub(crate) fn new(capacity: i64) -> Self {
        KeyValues::Together(JointKeys { buffers: None, capacity, length: 0 })
    }

    /// Adds keys and values, and gives all there are to see.
    fn extend(&mut self, new: [&Tensor; 2]) -> [Tensor; 2] {
        match self {
            KeyValues::Together(keys) => keys.extend(new),
            KeyValues::Slots(keys) => keys.extend(new),
        }
    }

    /// Keeps, repeats and reorders texts that are read in step.
    pub(crate) fn select(&mut self, rows: &Tensor) {
        if let KeyValues::Together(keys) = self {
            keys.select(rows);
        }
    }
}

/// The keys and values of texts that are read in step.
///
/// The buffers have room for the whole text from the start: a step writes one column.
#[derive(Debug)]
pub(crate) struct JointKeys {
    /// Keys and values, `[batch, heads, capacity, head size]`; made at the first write.
    buffers: Option<[Tensor; 2]>,
    capacity: i64,
    length: i64,
}

impl JointKeys {
    /// Adds keys and values, and gives all there are.
    fn extend(&mut self, new: [&Tensor; 2]) -> [Tensor; 2] {
        let size = new[0].size();
        let (batch, heads, added, head) = (size[0], size[1], size[2], size[3]);
        let capacity = self.capacity;
        let buffers = self.buffers.get_or_insert_with(|| {
            let like = (new[0].kind(), new[0].device());
            [(); 2].map(|()| Tensor::empty([batch, heads, capacity, head], like))
        });
        for (buffer, new) in buffers.iter().zip(new) {
            buffer.narrow(2, self.length, added).copy_(new);
        }
        self.length += added;
        let length = self.length;
        [0, 1].map(|i| buffers[i].narrow(2, 0, length))
    }

    /// Keeps, repeats and reorders texts.
    fn select(&mut self, rows: &Tensor) {
        for buffer in self.buffers.iter_mut().flatten() {
            let mut size = buffer.size();
            size[0] = rows.size()[0];
            let chosen = Tensor::empty(&size[..], (buffer.kind(), buffer.device()));
            let used = buffer.narrow(2, 0, self.length).index_select(0, rows);
            chosen.narrow(2, 0, self.length).copy_(&used);
            *buffer = chosen;
        }
    }
}

/// `[batch, length, heads · size]` as `[batch, heads, length, size]`.
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.view([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// How scores become weights.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attention {
    pub dropout: f64,
    /// What scores are multiplied by; 1 / √size if not given.
    pub scale: Option<f64>,
    /// How many tokens a causal query sees, itself included; all before it if not given.
    pub window: Option<i64>,
    /// Scores are bent below this: c · tanh(score / c). The fused kernels do not do that.
    pub softcap: Option<f64>,
}

impl Attention {
    /// softmax(scale · q kᵀ) v over the keys that the context lets each query see, heads put
    /// together again: `[batch, length, heads · size]`.
    ///
    /// `key` and `value` may have fewer heads than `query`; each serves as many queries.
    pub(crate) fn attend(
        &self,
        query: &Tensor,
        key: Tensor,
        value: Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let [key, value] = match keys {
            Some(keys) => keys.extend([&key, &value]),
            None => [key, value],
        };
        let (queries, seen) = (query.size()[2], key.size()[2]);
        let train = context.train;
        let plain = self.softcap.is_some() || (queries == 1 && !train);
        let dropout = if train { self.dropout } else { 0.0 };
        if let (Seen::InDocuments(own), false) = (&context.seen, plain) {
            let (bounds, tokens) = (own.documents.bounds(), [query.size()[0], queries]);
            assert_eq!(own.documents.of_tokens().size(), tokens, "documents of other tokens");
            let of = kernels::DocumentAttention {
                bounds,
                scale: self.scale,
                dropout,
                window: self.window,
            };
            if let Some(out) = kernels::document_attention(query, &key, &value, &of) {
                return out;
            }
        }
        if let (Seen::Tokens(tokens), false) = (&context.seen, plain) {
            if let Some(out) = self.by_tiles([query, &key, &value], tokens, dropout) {
                return out;
            }
        }
        let banded;
        let mask = match (&context.seen, self.window) {
            (Seen::Causal(mask), Some(window)) if seen > window => {
                banded = band(queries, seen, Some(window), mask.as_ref(), query.device());
                Some(&banded)
            }
            (Seen::InDocuments(documents), Some(window)) if seen > window => {
                let mask = Some(documents.mask());
                banded = band(queries, seen, Some(window), mask, query.device());
                Some(&banded)
            }
            (Seen::UpTo { positions, mask }, Some(window)) if seen > window => {
                let places = Tensor::arange(seen, (Kind::Int64, query.device()));
                let near = places.gt_tensor(&(positions - window)).unsqueeze(1).unsqueeze(1);
                banded = mask.logical_and(&near);
                Some(&banded)
            }
            (Seen::Causal(None), _) if plain && queries > 1 => {
                banded = band(queries, seen, None, None, query.device());
                Some(&banded)
            }
            (all, _) => all.mask(),
        };
        if plain {
            return self.attend_plainly(query, &key, &value, mask, dropout);
        }
        // The kernels' own causal mask is of a text from its beginning; later queries come alone,
        // and see all that was before.
        let causal = matches!(context.seen, Seen::Causal(_)) && mask.is_none() && queries > 1;
        debug_assert!(!causal || queries == seen, "several queries begin a text");
        let grouped = query.size()[1] != key.size()[1];
        let out = Tensor::scaled_dot_product_attention(
            query, &key, &value, mask, dropout, causal, self.scale, grouped,
        );
        let size = out.size();
        out.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
    }
}

impl Attention {
    /// [`attend`](Self::attend) in kernels of our own, where they take it and are quicker: not for queries, keys and
    /// values that would have to be copied first.
    fn by_tiles(&self, of: [&Tensor; 3], tokens: &SeenTokens, dropout: f64) -> Option<Tensor> {
        let [query, key, value] = of;
        let (size, kind) = (query.size(), query.kind());
        let [batch, heads, length, head] = size[..] else { return None };
        let same = key.size() == size && value.size() == size && self.window.is_none();
        if !same || !kernels::tiles_without_positions(query, head, length) {
            return None;
        }
        let rows = of.map(|t| {
            let rows = t.transpose(1, 2);
            rows.is_contiguous().then(|| rows.view([batch * length, heads * head]))
        });
        let [Some(query), Some(key), Some(value)] = rows else { return None };
        kernels::disentangled_tiled(
            &kernels::Disentangled {
                query: &query,
                key: &key,
                value: &value,
                pos_key: None,
                pos_query: None,
                mask: tokens.added(kind),
                heads,
                scale: self.scale.unwrap_or(1.0 / (head as f64).sqrt()),
                dropout,
            },
            None,
        )
    }

    /// [`attend`](Self::attend) as two products. So are softcapped scores, and the one query a text
    /// of a step of decoding.
    ///
    /// That not by the fused kernels: libtorch may choose cuDNN's in bf16, which plans anew for
    /// every number of keys, and every step has another (66 ms a step on an H200, against 4).
    fn attend_plainly(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: Option<&Tensor>,
        dropout: f64,
    ) -> Tensor {
        let (heads, queries, size) = (query.size()[1], query.size()[2], query.size()[3]);
        let (batch, shared, seen) = (key.size()[0], key.size()[1], key.size()[2]);
        let scale = self.scale.unwrap_or(1.0 / (size as f64).sqrt());
        // Queries that share a key are rows of one product.
        let (group, rows) = (heads / shared, heads / shared * queries);
        let query = query.reshape([batch, shared, rows, size]) * scale;
        let mut scores = query.matmul(&key.transpose(2, 3));
        if let Some(cap) = self.softcap {
            scores = (scores / cap).tanh() * cap;
        }
        if let Some(mask) = mask {
            let mask = mask.unsqueeze(2);
            scores = scores.view([batch, shared, group, queries, seen]);
            scores = match mask.kind() {
                Kind::Bool => scores.masked_fill(&mask.logical_not(), f64::NEG_INFINITY),
                _ => scores + mask,
            };
            scores = scores.view([batch, shared, rows, seen]);
        }
        let weights = scores.softmax(-1, Kind::Float).to_kind(value.kind());
        let weights = linear::dropout(weights, dropout, true);
        let out = weights.matmul(value).view([batch, heads, queries, size]);
        out.transpose(1, 2).reshape([batch, queries, heads * size])
    }
}

/// True where one of the last `queries` tokens may see one of `seen` keys: itself and those before
/// it, with a window the `window - 1` before it, as far as `mask` lets it.
fn band(
    queries: i64,
    seen: i64,
    window: Option<i64>,
    mask: Option<&Tensor>,
    device: Device,
) -> Tensor {
    let ones = Tensor::ones([queries, seen], (Kind::Bool, device));
    let before = seen - queries;
    let band = match window {
        Some(window) => ones.tril(before).logical_and(&ones.triu(before - window + 1)),
        None => ones.tril(before),
    };
    match mask {
        Some(mask) => band.logical_and(mask),
        None => band.unsqueeze(0).unsqueeze(0),
    }
}
