"""Checks of listings: the right keys in the right order, in pages that are cut anywhere."""

from shardfs.core.keys import ref_prefix
from shardfs.testing.check import Make, expect, sorted_keys
from shardfs.testing.samples import sample_chunk, sample_manifest, sample_ref


async def check_list(make: Make) -> None:
    """Keys by prefix, sorted as strings; a model's refs and no other model's."""
    models = ("a", "a-b", "a.b", "a/b", "ab", "Z", "ä")
    refs = [sample_ref(model, generation, seed) for model in models for generation, seed in ((1, 0), (1, 1), (20, 0))]
    chunks = [sample_chunk(seed) for seed in range(40)]
    manifests = [sample_manifest(seed) for seed in range(3)]
    async with make() as store:
        for prefix in ("chunks/", "chunks/00/", "manifests/", "refs/", ref_prefix("a")):
            expect(await store.list(prefix), [], f"list {prefix} of an empty store")
        for sample in (*refs, *chunks, *manifests):
            await store.put(sample.key, [sample.data])
        expect(await store.list("chunks/"), sorted_keys(chunks), "list chunks/")
        expect(await store.list("manifests/"), sorted_keys(manifests), "list manifests/")
        expect(await store.list("refs/"), sorted_keys(refs), "list refs/")
        for prefix in {sample.key[:10] for sample in chunks} | {"chunks/zz/"}:
            expect(await store.list(prefix), [k for k in sorted_keys(chunks) if k.startswith(prefix)], f"list {prefix}")
        for model in (*models, "b"):
            wanted = [k for k in sorted_keys(refs) if k.startswith(ref_prefix(model))]
            expect(await store.list(ref_prefix(model)), wanted, f"list the refs of {model}")
        await store.delete(chunks[0].key)
        expect(await store.list("chunks/"), sorted_keys(chunks[1:]), "list after a delete")


async def check_list_pages(make: Make) -> None:
    """`after` and `limit` cut the listing anywhere, also at keys that do not exist."""
    samples = [*(sample_chunk(seed) for seed in range(25)), *(sample_ref("m/n", g) for g in range(1, 8))]
    samples += [sample_ref(model, 1) for model in ("m", "m-n", "m.n")]
    async with make() as store:
        for sample in samples:
            await store.put(sample.key, [sample.data])
        for prefix in ("chunks/", "refs/", ref_prefix("m/n")):
            every = [key for key in sorted_keys(samples) if key.startswith(prefix)]
            for limit in (1, 2, 7, len(every), len(every) + 1):
                after, found = "", list[str]()
                while page := await store.list(prefix, after=after, limit=limit):
                    expect(page, every[len(found) : len(found) + limit], f"page of {limit} after {after}")
                    found += page
                    after = page[-1]
                expect(found, every, f"all pages of {limit}")
            for after in (prefix, every[3] + "x", every[3][:-1], "zzz", "chunks/" + "9" * 20, "refs/m.", "refs/m-"):
                wanted = [key for key in every if key > after]
                expect(await store.list(prefix, after=after), wanted, f"list {prefix} after {after}")
