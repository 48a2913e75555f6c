//! What the kernels take: the twins of the structs of `kernels/*.cu`, which the build makes (`build/args.rs`).

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::cuda::{Args, Pointer};

/// Name and size of a struct; name, offset and size of each of its fields.
#[cfg(test)]
pub(super) type Layout = (&'static str, usize, &'static [(&'static str, usize, usize)]);

include!(concat!(env!("OUT_DIR"), "/args.rs"));
