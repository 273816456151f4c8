//! The kernels of attention by tiles, compiled for the CPU (tests/emulation), held to the reference.
//! No GPU is needed.

use super::{assert_close, attention, gradients, Distances, Given, NEAR};
use crate::emulation::{self, at};
use std::ffi::c_void;
use tch::{Device, Kind, Tensor};

/// The addresses that tests/emulation/disentangled_tiled.cpp reads, by its order.
#[repr(C)]
struct Addresses([*mut c_void; 19]);

#[repr(C)]
#[derive(Clone, Copy)]
struct Numbers {
    batch: u32,
    heads: u32,
    length: u32,
    positions: u32,
    scale: f32,
    keep: f32,
    threshold: u32,
    order: u32,
}

/// The kernels for one size of heads, with positions or without.
struct Kernels(emulation::Kernels<unsafe extern "C" fn(*const Addresses, *const Numbers)>);

/// What they computed: the output and the gradients of queries, keys, values and the scores against
/// positions.
struct Computed {
    out: Tensor,
    gradients: Vec<Tensor>,
}

impl Kernels {
    /// `skips` as of long texts, and of all without positions.
    fn new(size: i64, positions: bool, skips: bool) -> Kernels {
        let definitions = [
            format!("SIZE={size}"),
            format!("POSITIONS={}", i64::from(positions)),
            format!("SKIPS={}", i64::from(skips)),
        ];
        Kernels(emulation::Kernels::new("disentangled_tiled", &definitions))
    }

    /// Warps run ahead of one another as `order` says. Gradients if `toward` is given.
    fn run(&self, given: &Given, dropout: f64, toward: Option<&Tensor>, order: u32) -> Computed {
        let Given { batch, heads, length, size, .. } = *given;
        let nothing = |shape: &[i64], kind| Tensor::full(shape, f64::NAN, (kind, Device::Cpu));
        let hidden = || nothing(&[batch, length, heads * size], Kind::BFloat16);
        let by_line = || nothing(&[batch, heads, length], Kind::Float);
        let positions = given.distances.positions;
        let scores = |p: &Option<Tensor>| match (p, toward) {
            (Some(_), Some(_)) => nothing(&[heads, batch * length, positions], Kind::BFloat16),
            _ => nothing(&[0], Kind::BFloat16),
        };
        let (out, lse, delta) = (hidden(), by_line(), by_line());
        let (dq, dk, dv) = (hidden(), hidden(), hidden());
        let (dc2p, dp2c) = (scores(&given.pos_key), scores(&given.pos_query));
        let by_head = || nothing(&[heads, batch * length, size], Kind::BFloat16);
        let (queries, keys) = (by_head(), by_head());
        let Distances { rows, edges, .. } = &given.distances;
        let any = given.pos_key.is_some() || given.pos_query.is_some();
        let tensors = Addresses([
            at(Some(&given.query)),
            at(Some(&given.key)),
            at(Some(&given.value)),
            at(given.pos_key.as_ref()),
            at(given.pos_query.as_ref()),
            at(Some(&given.mask)),
            at(any.then_some(rows)),
            at(any.then_some(edges)),
            at(Some(&out)),
            at(Some(&lse)),
            at(toward),
            at(Some(&delta)),
            at(Some(&dq)),
            at(Some(&dk)),
            at(Some(&dv)),
            at(Some(&dc2p)),
            at(Some(&dp2c)),
            at(Some(&queries)),
            at(Some(&keys)),
        ]);
        let threshold = (dropout * 65536.0).round() as u32;
        let numbers = Numbers {
            batch: batch as u32,
            heads: heads as u32,
            length: length as u32,
            positions: positions as u32,
            scale: given.scale as f32,
            keep: (65536.0 / (65536.0 - f64::from(threshold))) as f32,
            threshold,
            order,
        };
        // SAFETY: the tensors live through the call, are contiguous, and have the shapes that the kernels
        // read and write.
        unsafe { (self.0.emulate)(&tensors, &numbers) };
        for (positions, found, given) in
            [(&given.pos_key, &queries, &given.query), (&given.pos_query, &keys, &given.key)]
        {
            let by_head = given.view([-1, heads, size]).transpose(0, 1);
            assert!(positions.is_none() || toward.is_none() || found.equal(&by_head));
        }
        let gradients = [dq, dk, dv, dc2p, dp2c].into_iter().filter(|t| t.numel() > 0).collect();
        Computed { out, gradients }
    }

    /// Which weights stay, `[batch, heads, length, length]`: those of one token's key are the output where its
    /// value alone is 1, in one number of the head. Nothing is masked here.
    fn kept(&self, given: &Given, dropout: f64) -> Tensor {
        let Given { batch, heads, length, size, .. } = *given;
        let parts: Vec<Tensor> = (0..(length + size - 1) / size)
            .map(|part| {
                let at = Tensor::arange(length, (Kind::Int64, Device::Cpu)) - part * size;
                let one =
                    at.unsqueeze(1).eq_tensor(&Tensor::arange(size, (Kind::Int64, Device::Cpu)));
                let value = one.to_kind(Kind::BFloat16).repeat([batch, heads]);
                let out = self
                    .run(
                        &Given { value, mask: given.mask.zeros_like(), ..given.copy() },
                        dropout,
                        None,
                        0,
                    )
                    .out;
                out.view([batch, length, heads, size]).transpose(1, 2)
            })
            .collect();
        Tensor::cat(&parts, 3).narrow(3, 0, length).ne(0.0)
    }
}

/// Compares at each of some orders, and the orders with one another.
fn hold_to_reference(kernels: &Kernels, given: &Given, dropout: f64, what: &str) {
    let Given { batch, heads, length, size, .. } = *given;
    let hidden = heads * size;
    let toward = super::random(&[batch, length, hidden], Kind::BFloat16, Device::Cpu);
    let kept = (dropout > 0.0).then(|| {
        let kept = kernels.kept(given, dropout).to_kind(Kind::Double);
        let share = kept.mean(Kind::Double).double_value(&[]);
        assert!((share - (1.0 - dropout)).abs() < 0.02, "{what}: {share} stay");
        let other = kept.select(1, 0) - kept.select(1, heads - 1);
        assert!(heads == 1 || other.abs().sum(Kind::Double).double_value(&[]) > 0.0, "{what}");
        kept / (1.0 - dropout)
    });
    let double = given.double();
    let z = attention(&double, kept.as_ref());
    let expected = gradients(&z, &toward.to_kind(Kind::Double), &double.leaves());
    let first = kernels.run(given, dropout, Some(&toward), 0);
    // Of a text of many tiles fewer orders, for each takes seconds.
    let orders = (1..8).step_by(if length > 70 { 3 } else { 1 });
    for order in orders {
        let again = kernels.run(given, dropout, Some(&toward), order);
        let same = |a: &Tensor, b: &Tensor| a.allclose(b, 0.0, 0.0, false);
        assert!(same(&first.out, &again.out), "{what}: other bits with warps in order {order}");
        for (a, b) in first.gradients.iter().zip(&again.gradients) {
            assert!(same(a, b), "{what}: other bits of gradients with warps in order {order}");
        }
    }
    assert_close(what, &first.out, &z, Kind::BFloat16);
    // What came by scores against positions is added as shim/disentangled_tiled.h adds it.
    let mut found: Vec<Tensor> = first.gradients.iter().map(|t| t.to_kind(Kind::Double)).collect();
    let by_head = |t: &Tensor| t.view([-1, heads, size]).transpose(0, 1).to_kind(Kind::Double);
    let whole = |t: Tensor| t.transpose(0, 1).reshape([-1, hidden]);
    let mut scores = found.split_off(3).into_iter();
    let positions = [(&given.pos_key, &given.query), (&given.pos_query, &given.key)];
    for (side, (positions, content)) in positions.into_iter().enumerate() {
        let Some(positions) = positions else { continue };
        let scores = scores.next().unwrap();
        let more = whole(scores.bmm(&by_head(positions)));
        found[side] = &found[side] + more.view_as(&found[side]);
        found.push(whole(scores.transpose(1, 2).bmm(&by_head(content))));
    }
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert_close(&format!("{what}, gradient {i}"), &f.view_as(e), e, Kind::BFloat16);
    }
}

fn with_heads_of(size: i64, skips: bool) {
    let _turn = crate::seeded(size);
    let kernels = Kernels::new(size, true, skips);
    // Four tiles of queries for one size, three for the others.
    let long = if size == 64 { 200 } else { 130 };
    let [few, tile, many] = NEAR;
    for (batch, heads, length, near, c2p, p2c, dropout) in [
        (1, 1, 1, few, true, true, 0.0),
        (2, 2, 33, few, true, true, 0.0),
        (1, 1, 64, many, true, true, 0.0),
        (1, 1, 65, few, false, false, 0.0),
        (2, 1, 70, few, true, false, 0.0),
        (2, 1, 70, many, false, true, 0.0),
        (1, 1, long, few, true, true, 0.0),
        (1, 1, long, many, true, true, 0.0),
        (2, 2, 75, few, true, true, 0.3),
        (3, 1, 130, many, true, true, 0.0),
        (1, 1, 192, tile, true, true, 0.0),
        (3, 1, 130, few, true, true, 0.0),
        (3, 1, 75, few, false, true, 0.3),
    ] {
        let what = format!(
            "{batch} × {length}, {heads} heads of {size}, near {near}, c2p {c2p}, p2c {p2c}, dropout {dropout}"
        );
        let given = Given::new((batch, heads, length, size), (c2p, p2c), near, Device::Cpu);
        hold_to_reference(&kernels, &given, dropout, &what);
    }
}

/// As of an encoder's texts, which end in padding.
fn without_positions(size: i64) {
    let _turn = crate::seeded(size);
    let kernels = Kernels::new(size, false, true);
    for (batch, heads, length, dropout) in
        [(1, 1, 1, 0.0), (3, 1, 33, 0.0), (3, 2, 64, 0.0), (3, 1, 130, 0.0), (3, 2, 75, 0.3)]
    {
        let what = format!("{batch} × {length}, {heads} heads of {size}, dropout {dropout}");
        let given = Given::new((batch, heads, length, size), (false, false), NEAR[0], Device::Cpu);
        hold_to_reference(&kernels, &given, dropout, &what);
    }
}

#[test]
fn tiles_without_positions_of_heads_of_32_numbers() {
    without_positions(32);
}

#[test]
fn tiles_without_positions_of_heads_of_64_numbers() {
    without_positions(64);
}

#[test]
fn tiles_without_positions_of_heads_of_128_numbers() {
    without_positions(128);
}

#[test]
fn tiles_of_long_texts_with_heads_of_32_numbers() {
    with_heads_of(32, true);
}

#[test]
fn tiles_of_long_texts_with_heads_of_64_numbers() {
    with_heads_of(64, true);
}

#[test]
fn tiles_of_short_texts_with_heads_of_64_numbers() {
    with_heads_of(64, false);
}

#[test]
fn tiles_of_short_texts_with_heads_of_128_numbers() {
    with_heads_of(128, false);
}
