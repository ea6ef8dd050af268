//! What the parts on the way of a message cost by themselves, without a kernel: frames read, unmasked and written, timers
//! armed and fired, messages appended to a log and handed to its subscribers. `cargo bench` in this folder.
//!
//! Throughput is in the units of the work: bytes of payload, or things done. Where memory is what bounds it (`unmask`),
//! a plain copy and a plain read of the same bytes stand beside it.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use throng::benching::Topic;
use throng::mem::{Link, Links, Rng, Wheel};
use throng::time::{Span, Tick};
use throng::ws::{self, Opcode, Role, Rules};

const KEY: [u8; 4] = [0x12, 0x9A, 0xE3, 0x47];
const KB: usize = 1024;

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| b'a' + (index % 26) as u8).collect()
}

/// A scratch full of frames as a client sends them, read in place.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for size in [64, KB, 16 * KB] {
        let payload = payload(size);
        let count = (64 * KB / (size + 14)).max(1);
        for opcode in [Opcode::Text, Opcode::Binary] {
            let mut frames = Vec::new();
            (0..count).for_each(|_| ws::encode_masked(&mut frames, opcode, &payload, KEY));
            let rules = Rules { role: Role::Server, message_bytes_max: 64 * KB, compression: false };
            group.throughput(Throughput::Bytes((count * size) as u64));
            group.bench_function(BenchmarkId::new(format!("{opcode:?}"), size), |b| {
                // Unmasked in place, so each round needs them masked again: the copy is not in what is measured.
                let read = |mut input: Vec<u8>| {
                    let (mut partial, mut at, mut messages) = (None, 0, 0);
                    while let Some(event) = ws::decode(&mut partial, &mut input, &mut at, rules).expect("good frames") {
                        black_box(event);
                        messages += 1;
                    }
                    assert_eq!(messages, count);
                };
                b.iter_batched(|| frames.clone(), read, BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for size in [16, 64, KB, 64 * KB, 16 * KB * KB] {
        group.throughput(Throughput::Bytes(size as u64));
        let (mut bytes, mut other) = (payload(size), vec![0; size]);
        group
            .bench_function(BenchmarkId::new("unmask", size), |b| b.iter(|| ws::unmask(black_box(&mut bytes), KEY, 0)));
        group.bench_function(BenchmarkId::new("copy", size), |b| {
            b.iter(|| black_box(&mut other).copy_from_slice(black_box(&bytes)));
        });
        group.bench_function(BenchmarkId::new("bytewise", size), |b| {
            b.iter(|| {
                for (index, byte) in black_box(&mut bytes).iter_mut().enumerate() {
                    *byte = black_box(*byte ^ KEY[index % 4]);
                }
            });
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for size in [64, KB, 16 * KB] {
        let payload = payload(size);
        let mut out = Vec::with_capacity(size + 16);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                out.clear();
                ws::encode(black_box(&mut out), Opcode::Text, black_box(&payload));
            });
        });
    }
    group.finish();
}

struct Timers(Vec<Link>);

impl Links for Timers {
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.0[slot as usize]
    }
}

/// A hundred thousand heartbeats, as connections have them.
fn wheel(c: &mut Criterion) {
    const TIMERS: u32 = 100_000;
    let interval = Span(390); // 25 s
    let (mut rng, mut now) = (Rng::new(1), Tick(1_000_000));
    let (mut wheel, mut timers) = (Wheel::new(now), Timers(vec![Link::default(); TIMERS as usize]));
    (0..TIMERS).for_each(|slot| wheel.arm(&mut timers, slot, now + Span(1 + rng.below(u64::from(interval.0)) as u32)));
    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1));
    group.bench_function("arm again", |b| {
        b.iter(|| {
            let slot = rng.below(u64::from(TIMERS)) as u32;
            wheel.arm(&mut timers, slot, now + interval);
        });
    });
    group.bench_function("fire and arm again", |b| {
        b.iter(|| {
            loop {
                if let Some(slot) = wheel.pop(&mut timers) {
                    break wheel.arm(&mut timers, slot, now + interval);
                }
                now = now + Span(1);
                wheel.advance(&mut timers, now);
            }
        });
    });
    group.finish();
}

fn topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topic");
    let payload = payload(64);
    group.throughput(Throughput::Elements(1));
    let mut topic = Topic::new(0);
    group.bench_function("append", |b| b.iter(|| topic.publish(black_box(&payload))));
    for subscribers in [1, 1000, 18_000] {
        let mut topic = Topic::new(subscribers);
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(BenchmarkId::new("publish and sweep", subscribers), |b| {
            b.iter(|| {
                topic.publish(black_box(&payload));
                assert_eq!(topic.sweep(|bytes| _ = black_box(bytes)), subscribers);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, unmask, encode, wheel, topics);
criterion_main!(benches);
