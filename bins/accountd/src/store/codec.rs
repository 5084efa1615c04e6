//! Compressing and decompressing frames, with zstd's contexts kept between them.
//!
//! Making a context costs nearly as much as compressing a mail of 5 KB does. A few are kept for the
//! whole process: more than one for each processor are never at work, and one for each thread that
//! might need one would hold memory for nothing. A context carries nothing from one frame to the
//! next.

use super::StoreError;
use std::sync::{Mutex, PoisonError};
use zstd::zstd_safe::{self, CCtx, DCtx};

/// Level 3: 62 % off a 5 KB mail for 20 us; higher levels are not worth their time.
const LEVEL: i32 = 3;
/// Contexts of a kind that are kept.
const KEPT: usize = 4;
/// Plain octets for which a kept context compresses: for more it takes a megabyte, and the cost of
/// making one is not felt.
const KEPT_UP_TO: usize = 64 * 1024;
/// What zstd takes for the beginning of a dictionary of its own making.
const DICTIONARY_MAGIC: [u8; 4] = zstd_safe::zstd_sys::ZSTD_MAGIC_DICTIONARY.to_le_bytes();

/// Contexts nobody uses at the moment.
struct Idle<C>(Mutex<Vec<C>>);

impl<C: Default> Idle<C> {
    const fn none() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Works with one. One that a panic passes is not kept.
    fn with<T>(&self, work: impl FnOnce(&mut C) -> T) -> T {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = idle.unwrap_or_default();
        let outcome = work(&mut context);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(context);
        }
        outcome
    }
}

static COMPRESSORS: Idle<CCtx<'static>> = Idle::none();
static DECOMPRESSORS: Idle<DCtx<'static>> = Idle::none();

fn compress_by(
    plain: &[u8],
    run: impl FnOnce(&mut CCtx<'static>, &mut Vec<u8>) -> zstd_safe::SafeResult,
) -> Result<Vec<u8>, StoreError> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    let done = if plain.len() <= KEPT_UP_TO {
        COMPRESSORS.with(|context| run(context, &mut frame))
    } else {
        run(&mut CCtx::default(), &mut frame)
    };
    match done {
        Ok(_) => Ok(frame),
        Err(code) => {
            Err(StoreError::Failed(format!("compressing: {}", zstd_safe::get_error_name(code))))
        }
    }
}

fn decompress_by(
    size: usize,
    run: impl FnOnce(&mut DCtx<'static>, &mut Vec<u8>) -> zstd_safe::SafeResult,
) -> Result<Vec<u8>, StoreError> {
    let mut plain = Vec::with_capacity(size);
    DECOMPRESSORS.with(|context| run(context, &mut plain)).map_err(|code| {
        let why = zstd_safe::get_error_name(code);
        StoreError::Damaged(format!("content does not decompress: {why}"))
    })?;
    if plain.len() == size {
        Ok(plain)
    } else {
        Err(StoreError::Damaged("content has another length than its row says".into()))
    }
}

/// Compresses one frame.
pub(crate) fn compress(plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    compress_by(plain, |context, frame| context.compress(frame, plain, LEVEL))
}

/// Decompresses one frame that must be exactly `size` bytes: a damaged file is no bomb.
pub(crate) fn decompress(frame: &[u8], size: usize) -> Result<Vec<u8>, StoreError> {
    decompress_by(size, |context, plain| context.decompress(plain, frame))
}

/// Compresses one frame whose text is like `model`'s: what both have costs next to nothing. `None`
/// where zstd would read the model as a dictionary of its own form instead of as text.
pub(crate) fn compress_like(model: &[u8], plain: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    if model.starts_with(&DICTIONARY_MAGIC) {
        return Ok(None);
    }
    compress_by(plain, |context, frame| context.compress_using_dict(frame, plain, model, LEVEL))
        .map(Some)
}

/// The way back, with the same model.
pub(crate) fn decompress_like(
    model: &[u8],
    frame: &[u8],
    size: usize,
) -> Result<Vec<u8>, StoreError> {
    decompress_by(size, |context, plain| context.decompress_using_dict(plain, frame, model))
}

/// Compresses a frame that is checked by itself when read.
pub(crate) fn compress_checked(plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let failed = |e: std::io::Error| StoreError::Failed(format!("compressing: {e}"));
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(failed)?;
    compressor.include_checksum(true).map_err(failed)?;
    compressor.compress(plain).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_bombs_do_not() {
        for len in [0, 1, 5000, KEPT_UP_TO, KEPT_UP_TO + 1, 256 * 1024] {
            let plain: Vec<u8> = (0..len).map(|n| (n * n % 251) as u8).collect();
            let frame = compress(&plain).unwrap();
            assert_eq!(decompress(&frame, len).unwrap(), plain);
            assert!(matches!(decompress(&frame, len + 1), Err(StoreError::Damaged(_))));
            assert!(len == 0 || matches!(decompress(&frame, len - 1), Err(StoreError::Damaged(_))));
        }
    }

    #[test]
    fn what_a_model_has_costs_next_to_nothing() {
        // Nothing in it repeats.
        let noise = |seed: u32| {
            (0..5000).scan(seed, |x, _| {
                *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((*x >> 24) as u8)
            })
        };
        let model: Vec<u8> = noise(1).collect();
        let plain: Vec<u8> = model[100..4000].iter().copied().chain(*b"and this").collect();
        let frame = compress_like(&model, &plain).unwrap().unwrap();
        assert!(frame.len() < 64, "{} octets", frame.len());
        assert_eq!(decompress_like(&model, &frame, plain.len()).unwrap(), plain);
        // Another model is noticed, or gives other text of the same length: never more.
        let other: Vec<u8> = noise(2).collect();
        assert!(decompress_like(&other, &frame, plain.len()).is_ok_and(|p| p != plain));
        assert!(decompress_like(&[], &frame, plain.len()).is_err());
        // A context that had a model compresses the next frame without it.
        let alone = compress(&plain).unwrap();
        assert!(alone.len() > 3000);
        assert_eq!(decompress(&alone, plain.len()).unwrap(), plain);
        for short in [&b""[..], b"1234567"] {
            let frame = compress_like(short, &plain).unwrap().unwrap();
            assert_eq!(decompress_like(short, &frame, plain.len()).unwrap(), plain);
        }
        let looks_like_one = [&DICTIONARY_MAGIC[..], &model].concat();
        assert_eq!(compress_like(&looks_like_one, &plain).unwrap(), None);
    }
}
