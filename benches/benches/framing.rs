//! Headers and the few bodies that are read: what each message costs before any of its bytes is moved.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgward_wire::frontend::{self, Bind};
use pgward_wire::tag::backend as tag;
use pgward_wire::{ProtocolError, TxStatus, backend, frame};

/// What a server answers to a prepared read: BindComplete, rows, CommandComplete, ReadyForQuery.
fn answer(rows: usize) -> BytesMut {
    let mut out = BytesMut::from(backend::BIND_COMPLETE);
    for n in 0..rows {
        let id = format!("{n:08x}-3c5d-7b21-9f60-5a2b1c3d4e5f");
        backend::put_data_row(&mut out, &[Some(id.as_str()), Some("MRN-0012345"), Some("Quispe"), Some("1971-03-02")]);
    }
    backend::put_command_complete(&mut out, &format!("SELECT {rows}"));
    backend::put_ready_for_query(&mut out, TxStatus::Idle);
    out
}

/// From header to header.
fn headers(mut bytes: &[u8]) -> Result<usize, ProtocolError> {
    let mut seen = 0;
    while let Some(header) = frame::header(bytes)? {
        bytes = &bytes[header.len.min(bytes.len())..];
        seen += 1;
    }
    Ok(seen)
}

/// The same, with the bodies read that change a session.
fn messages(mut bytes: &[u8]) -> Result<Option<TxStatus>, ProtocolError> {
    let mut status = None;
    while let Some(header) = frame::header(bytes)? {
        let (message, rest) = bytes.split_at(header.len.min(bytes.len()));
        match header.tag {
            tag::READY_FOR_QUERY => status = Some(backend::ready_for_query(&message[5..])?),
            tag::COMMAND_COMPLETE => drop(black_box(backend::command_tag(&message[5..])?)),
            _ => {}
        }
        bytes = rest;
    }
    Ok(status)
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(20);
    for rows in [1, 400] {
        let chunk = answer(rows);
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(format!("headers/{rows} rows"), |b| b.iter(|| headers(black_box(&chunk))));
        group.bench_function(format!("messages/{rows} rows"), |b| b.iter(|| messages(black_box(&chunk))));
    }
    let mut query = BytesMut::new();
    frontend::put_query(&mut query, pgward_benches::with_literal(pgward_benches::READ).as_bytes());
    group.throughput(Throughput::Elements(1));
    group.bench_function("Query", |b| b.iter(|| frontend::query(black_box(&query[5..])).map(<[u8]>::len)));
    let mut body = b"\0P0_1\0\0\0\0\x01\0\0\0\x24".to_vec();
    body.extend_from_slice(pgward_benches::PATIENT.as_bytes());
    body.extend_from_slice(b"\0\0");
    group.bench_function("Bind, renamed", |b| {
        let mut out = BytesMut::with_capacity(256);
        b.iter(|| {
            out.clear();
            let bind = Bind::from_body(black_box(&body))?;
            frontend::put_bind_renamed(&mut out, &body, b"pgward_17");
            Ok::<_, ProtocolError>(bind.value(1).is_some())
        })
    });
}

criterion_group!(benches, framing);
criterion_main!(benches);
