//! Indexes that share their digests answer as they did alone.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Files of one layer, each with its own content.
const LAYER: u8 = 100;

/// An image of layers. Each file of a layer is at two paths, so that contents have several files.
fn image(layers: &BTreeSet<u8>) -> ImageIndex {
    let mut builder = Builder::default();
    for (layer, file) in layers.iter().flat_map(|layer| (0..LAYER).map(move |file| (*layer, file))) {
        for copy in ["a", "b"] {
            let digests = Digests { sha256: Some(content(layer, file)), ..Digests::default() };
            builder.file(format!("/{layer}/{file}.{copy}").as_bytes(), digests).unwrap();
        }
    }
    builder.file(b"/no-digest", Digests::default()).unwrap();
    builder.finish().unwrap()
}

fn content(layer: u8, file: u8) -> Sha256 {
    crate::attestation::sha256(&[layer, file])
}

fn assert_is(index: &ImageIndex, layers: &BTreeSet<u8>) {
    for layer in 0..6 {
        for file in 0..LAYER {
            let mut paths: Vec<_> =
                index.by_sha256(&content(layer, file)).map(|entry| entry.path().to_string()).collect();
            paths.sort_unstable();
            let listed = ["a", "b"].map(|copy| format!("/{layer}/{file}.{copy}"));
            assert_eq!(paths, if layers.contains(&layer) { &listed[..] } else { &[] });
            for path in listed {
                let found = index.by_path(path.as_bytes()).map(Entry::sha256);
                assert_eq!(found, layers.contains(&layer).then(|| Some(content(layer, file))));
            }
        }
    }
    assert_eq!(index.by_path(b"/no-digest").map(Entry::sha256), Some(None));
}

fn bytes<'a>(indexes: impl IntoIterator<Item = &'a ImageIndex>) -> usize {
    indexes.into_iter().map(ImageIndex::heap_bytes).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_stay_while_images_come_and_go(
        steps in proptest::collection::vec((proptest::collection::btree_set(0..6_u8, 0..5), any::<prop::sample::Index>(), any::<bool>()), 1..10),
    ) {
        let pool = DigestPool::default();
        let mut images: Vec<(ImageIndex, BTreeSet<u8>)> = Vec::new();
        for (layers, gone, goes) in steps {
            let mut index = image(&layers);
            index.share(&pool);
            images.push((index, layers));
            if goes {
                images.swap_remove(gone.index(images.len()));
            }
            for (index, layers) in &images {
                assert_is(index, layers);
            }
        }
    }
}

#[test]
fn images_of_one_base_have_its_digests_once() {
    let layers = |own: u8| BTreeSet::from([0, 1, 2, own]);
    let alone = bytes(&[image(&layers(3))]);
    let pool = DigestPool::default();
    let of_layer = usize::from(LAYER) * size_of::<Sha256>();
    let mut images: Vec<_> = [3, 4, 5].map(|own| image(&layers(own))).into();
    images.iter_mut().for_each(|index| index.share(&pool));
    let saved = 3 * alone - bytes(&images);
    // Of each of the two others three of four layers, but for what the pointers to blocks take.
    assert!(saved <= 6 * of_layer && saved >= 6 * of_layer - 100, "{saved} of {}", 6 * of_layer);
    // The first one goes. What it brought stays for the others, with what only it has.
    images.remove(0);
    let saved = 2 * alone - bytes(&images);
    assert!(saved <= 2 * of_layer && saved >= 2 * of_layer - 100, "{saved} of {}", 2 * of_layer);
    // The same again has nothing of its own.
    let before = bytes(&images);
    let mut same = image(&layers(4));
    same.share(&pool);
    let more = bytes(images.iter().chain([&same])) - before;
    assert!(more <= alone - 4 * of_layer + 100, "{more} more, {alone} alone");
    assert_is(&same, &layers(4));
    // With nobody left, nothing is left.
    drop((images, same));
    let mut other = image(&layers(3));
    other.share(&pool);
    assert_eq!(bytes(&[other]), alone);
}

#[test]
fn a_block_of_which_little_is_needed_is_left() {
    let (large, small) = (BTreeSet::from([0, 1, 2]), BTreeSet::from([0]));
    let pool = DigestPool::default();
    let [mut one, mut other] = [&large, &small].map(image);
    let alone = bytes([&one, &other]);
    one.share(&pool);
    other.share(&pool);
    assert_eq!(bytes([&one, &other]), alone);
    // The other way round it is worth it.
    let pool = DigestPool::default();
    let [mut one, mut other] = [&small, &large].map(image);
    one.share(&pool);
    other.share(&pool);
    assert!(bytes([&one, &other]) < alone - 3000);
    assert_is(&one, &small);
    assert_is(&other, &large);
}
