//! Attention by tiles, held to scores as the paper writes them: its kernels on a CPU, and the
//! operation on a GPU.

mod emulated;

use super::{assert_close, double, gpu, gradients, leaf, GPU};
use aflora_cuda::{ops, Graph, Pool};
use tch::{Device, Kind, Tensor};

fn random(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    (Tensor::randn(shape, (Kind::Float, device)) * 0.5).to_kind(kind)
}

/// Distances up to here have rows of their own: few, so that far ones are in a short text; all of a tile, whose last share theirs
/// with the next; or more.
const NEAR: [i64; 3] = [8, 63, 96];

/// Which row of positions each distance has: near ones have their own, far ones share.
struct Distances {
    positions: i64,
    /// `[2 length - 1]`; entry t is for i - j = length - 1 - t.
    rows: Tensor,
    edges: Tensor,
}

impl Distances {
    fn new(length: i64, near: i64, device: Device) -> Distances {
        let last = near + 16;
        let row = |distance: i64| {
            let far = distance.abs();
            let shared = near + (4.0 * (far as f64 / near as f64).log2()).floor() as i64;
            let bucket = if far <= near { far } else { shared.min(last) };
            (last + bucket * distance.signum()) as i32
        };
        let rows: Vec<i32> = (1 - length..length).rev().map(row).collect();
        assert!(rows.windows(2).all(|pair| (0..=1).contains(&(pair[0] - pair[1]))));
        // An odd number, or, with further rows of no distance, a multiple of eight.
        let positions = 2 * last + if near == NEAR[0] { 1 } else { 8 };
        let count = |r| rows.iter().filter(|&&row| i64::from(row) >= r).count() as i32;
        let edges: Vec<i32> = (0..=positions).map(count).collect();
        let there = |numbers: &[i32]| Tensor::from_slice(numbers).to(device);
        Distances { positions, rows: there(&rows), edges: there(&edges) }
    }
}

/// What an attention is given.
struct Given {
    batch: i64,
    heads: i64,
    length: i64,
    size: i64,
    /// `[tokens, hidden]`.
    query: Tensor,
    key: Tensor,
    value: Tensor,
    /// `[positions, hidden]`.
    pos_key: Option<Tensor>,
    pos_query: Option<Tensor>,
    /// `[batch, length]`.
    mask: Tensor,
    distances: Distances,
    scale: f64,
}

impl Given {
    /// In bf16; a part of the first text is masked, the beginning of the second, and the end of the third.
    fn new(shape: (i64, i64, i64, i64), with: (bool, bool), near: i64, device: Device) -> Given {
        let (batch, heads, length, size) = shape;
        let distances = Distances::new(length, near, device);
        let random = |n| random(&[n, heads * size], Kind::BFloat16, device);
        let mask = Tensor::zeros([batch, length], (Kind::BFloat16, device));
        let _ = mask.get(0).narrow(0, length / 2, length / 4).fill_(-3e38);
        if batch > 1 {
            let _ = mask.get(1).narrow(0, 0, length / 3).fill_(-1e30);
        }
        if batch > 2 {
            let _ = mask.get(2).narrow(0, length / 3, length - length / 3).fill_(-1e30);
        }
        let [query, key, value] = [0, 1, 2].map(|_| random(batch * length));
        let [pos_key, pos_query] =
            [with.0, with.1].map(|wanted| wanted.then(|| random(distances.positions)));
        let scale = 0.2;
        Given {
            batch,
            heads,
            length,
            size,
            query,
            key,
            value,
            pos_key,
            pos_query,
            mask,
            distances,
            scale,
        }
    }

    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Given {
        let Distances { positions, rows, edges } = &self.distances;
        let distances = Distances {
            positions: *positions,
            rows: rows.shallow_clone(),
            edges: edges.shallow_clone(),
        };
        Given {
            query: f(&self.query),
            key: f(&self.key),
            value: f(&self.value),
            pos_key: self.pos_key.as_ref().map(&f),
            pos_query: self.pos_query.as_ref().map(&f),
            mask: self.mask.shallow_clone(),
            distances,
            ..*self
        }
    }

    fn copy(&self) -> Given {
        self.map(Tensor::shallow_clone)
    }

    /// Leaves of a graph in double precision.
    fn double(&self) -> Given {
        self.map(double)
    }

    fn leaves(&self) -> Vec<&Tensor> {
        let positions = [&self.pos_key, &self.pos_query].into_iter().flatten();
        [&self.query, &self.key, &self.value].into_iter().chain(positions).collect()
    }
}

/// Scores as the paper writes them, one gather each; of weights, what `kept` `[batch, heads, length,
/// length]` multiplies them with.
fn attention(given: &Given, kept: Option<&Tensor>) -> Tensor {
    let Given { batch, heads, length, size, ref mask, ref distances, .. } = *given;
    let by_head = |t: &Tensor| t.view([batch, length, heads, size]).transpose(1, 2);
    let of_positions = |t: &Tensor| t.view([-1, heads, size]).permute([1, 2, 0]);
    let at = Tensor::arange(length, (Kind::Int64, mask.device()));
    let distance = at.unsqueeze(0) - at.unsqueeze(1) + (length - 1);
    let row = distances.rows.to_kind(Kind::Int64).index_select(0, &distance.view([-1]));
    let row = row.view([length, length]);
    let index = |row: &Tensor| row.expand([batch, heads, length, length], false);
    let (query, key) = (by_head(&given.query), by_head(&given.key));
    let mut scores = query.matmul(&key.transpose(2, 3));
    if let Some(p) = &given.pos_key {
        scores += query.matmul(&of_positions(p)).gather(3, &index(&row), false);
    }
    if let Some(p) = &given.pos_query {
        let seen = key.matmul(&of_positions(p));
        scores += seen.gather(3, &index(&row.transpose(0, 1)), false).transpose(2, 3);
    }
    let mask = mask.to_kind(Kind::Double).view([batch, 1, 1, length]);
    let weights = (scores * given.scale + mask).softmax(-1, Kind::Double);
    let weights = kept.map_or_else(|| weights.shallow_clone(), |kept| &weights * kept);
    weights.matmul(&by_head(&given.value)).transpose(1, 2).reshape([batch, length, -1])
}

/// The operation; positions behind the tokens if they are `joined`.
fn by_tiles(given: &Given, joined: bool, dropout: f64) -> Tensor {
    let join = |t: &Tensor, p: &Option<Tensor>| match p {
        Some(p) if joined => Tensor::cat(&[t, p], 0),
        _ => t.shallow_clone(),
    };
    let own = |p: &Option<Tensor>| p.as_ref().filter(|_| !joined).map(Tensor::shallow_clone);
    let (pos_key, pos_query) = (own(&given.pos_key), own(&given.pos_query));
    let Distances { rows, edges, .. } = &given.distances;
    let any = given.pos_key.is_some() || given.pos_query.is_some();
    let of = ops::Disentangled {
        query: &join(&given.query, &given.pos_query),
        key: &join(&given.key, &given.pos_key),
        value: &given.value,
        pos_key: pos_key.as_ref(),
        pos_query: pos_query.as_ref(),
        mask: &given.mask,
        heads: given.heads,
        scale: given.scale,
        dropout,
    };
    ops::disentangled_tiled(&of, any.then_some(ops::SharedPositions { rows, edges }))
        .unwrap_or_else(|| panic!("not taken: {:?}", ops::failure()))
}

#[test]
fn attention_by_tiles_and_its_gradients_repeat_to_the_bit() {
    let Some(_turn) = gpu() else { return };
    for (batch, heads, length, size, c2p, p2c, joined) in [
        (2, 3, 33, 32, true, true, true),
        (4, 3, 128, 64, true, true, true),
        (3, 2, 33, 32, false, false, false),
        (3, 3, 128, 32, false, false, false),
        (3, 3, 200, 64, false, false, false),
        (2, 2, 200, 64, true, false, false),
        (2, 2, 200, 64, false, true, true),
        (1, 2, 65, 128, false, false, false),
        (3, 2, 300, 128, true, true, false),
        (3, 2, 256, 64, true, true, true),
        (1, 2, 1500, 64, true, true, true),
        (1, 1, 1, 64, true, true, true),
    ] {
        let what = format!(
            "{batch} × {length}, {heads} heads of {size}, c2p {c2p}, p2c {p2c}, joined {joined}"
        );
        // Of some, all of a tile's distances have rows of their own.
        let near = NEAR[if length % 64 == 0 { 2 } else { 0 }];
        let given = Given::new((batch, heads, length, size), (c2p, p2c), near, GPU);
        let toward = random(&[batch, length, heads * size], Kind::BFloat16, GPU);
        let run = || {
            let given = given.map(leaf);
            let y = by_tiles(&given, joined, 0.0);
            let found = gradients(&y, &toward, &given.leaves());
            (y, found)
        };
        let ((y, found), (again, found_again)) = (run(), run());
        assert_eq!(y, again, "{what}");
        let double = given.double();
        let z = attention(&double, None);
        assert_close(&what, &y, &z, Kind::BFloat16);
        let expected = gradients(&z, &toward.to_kind(Kind::Double), &double.leaves());
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(f, &found_again[i], "{what}, gradient {i}");
            assert_close(&format!("{what}, gradient {i}"), f, e, Kind::BFloat16);
        }
    }
}

#[test]
fn tiles_drop_weights_by_the_seed_and_gradients_know_which() {
    let Some(_turn) = gpu() else { return };
    for (length, size, positions) in [(150, 64, true), (150, 64, false), (97, 32, false)] {
        drops_by_the_seed((2, 2, length, size), positions);
    }
}

fn drops_by_the_seed(shape: (i64, i64, i64, i64), positions: bool) {
    let ((batch, heads, length, size), dropout) = (shape, 0.25);
    let given = Given::new(shape, (positions, positions), NEAR[0], GPU);
    let run = |given: &Given| {
        tch::manual_seed(11);
        by_tiles(given, true, dropout)
    };
    // The output is one token's weight where its value alone is 1.
    let parts: Vec<Tensor> = (0..(length + size - 1) / size)
        .map(|part| {
            let at = Tensor::arange(length, (Kind::Int64, GPU)) - part * size;
            let one = at.unsqueeze(1).eq_tensor(&Tensor::arange(size, (Kind::Int64, GPU)));
            let value = one.to_kind(Kind::BFloat16).repeat([batch, heads]);
            let out = run(&Given { value, ..given.copy() });
            out.view([batch, length, heads, size]).transpose(1, 2)
        })
        .collect();
    let kept = Tensor::cat(&parts, 3).narrow(3, 0, length).ne(0.0).to_kind(Kind::Double);
    let leaves = given.map(leaf);
    let y = run(&leaves);
    let toward = random(&[batch, length, heads * size], Kind::BFloat16, GPU);
    let found = gradients(&y, &toward, &leaves.leaves());
    let double = given.double();
    let z = attention(&double, Some(&(kept / (1.0 - dropout))));
    assert_close("output", &y, &z, Kind::BFloat16);
    let expected = gradients(&z, &toward.to_kind(Kind::Double), &double.leaves());
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert_close(&format!("gradient {i}"), f, e, Kind::BFloat16);
    }
}

#[test]
fn attention_by_tiles_is_recorded_with_its_gradients() {
    let Some(_turn) = gpu() else { return };
    let given = Given::new((2, 2, 96, 64), (true, true), NEAR[0], GPU);
    let toward = random(&[2, 96, 128], Kind::BFloat16, GPU);
    let work = || {
        let given = given.map(leaf);
        let y = by_tiles(&given, true, 0.1);
        (y.detach(), gradients(&y, &toward, &given.leaves()))
    };
    let _ = work();
    let (graph, (y, found)) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    let replay = |seed| {
        tch::manual_seed(seed);
        graph.replay().unwrap();
        let gradients: Vec<Tensor> = found.iter().map(Tensor::copy).collect();
        (y.copy(), gradients)
    };
    let (first, other, again) = (replay(7), replay(8), replay(7));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    tch::manual_seed(7);
    assert_eq!(first, work(), "recorded and not");
}
