"""A SentencePiece model as the `tokenizer.json` that LeRobot's AutoTokenizer reads."""

import json
from pathlib import Path

import sentencepiece

SPACE = "▁"
"""How SentencePiece writes a space."""


def is_like_paligemma(processor: sentencepiece.SentencePieceProcessor) -> bool:
    """Whether spaces stay as they are, none is put in front, and what is unknown becomes bytes."""
    has_bytes = any(processor.is_byte(number) for number in range(processor.vocab_size()))
    return has_bytes and "".join(processor.encode("a  b", out_type=str)) == f"a{SPACE}{SPACE}b"


def write_fast_tokenizer(processor: sentencepiece.SentencePieceProcessor, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json; needs the package tokenizers (it comes with transformers)."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence
    from tokenizers.models import BPE
    from tokenizers.normalizers import Replace as ReplaceInInput
    from tokenizers.processors import TemplateProcessing

    pieces = [processor.id_to_piece(number) for number in range(processor.vocab_size())]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    special = {
        f"{name}_token": pieces[number]
        for name, number in (
            ("bos", processor.bos_id()),
            ("eos", processor.eos_id()),
            ("unk", processor.unk_id()),
            ("pad", processor.pad_id()),
        )
    }
    tokenizer = Tokenizer(
        BPE(vocab, _merges(processor, vocab), unk_token=special["unk_token"], fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = ReplaceInInput(" ", SPACE)
    tokenizer.decoder = Sequence([Replace(SPACE, " "), ByteFallback(), Fuse()])
    bos = special["bos_token"]
    tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, vocab[bos])])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def _merges(processor: sentencepiece.SentencePieceProcessor, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Returns every pair of pieces that joins to a piece, the best-scored result first (SentencePiece's own order)."""
    found = []
    for piece, number in vocab.items():
        if processor.is_control(number) or processor.is_byte(number) or processor.is_unknown(number):
            continue
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [(vocab[left], vocab[right], left, right) for left, right in splits if left in vocab and right in vocab]
        found += [(-processor.get_score(number), number, *pair) for pair in sorted(known)]
    return [(left, right) for *_, left, right in sorted(found, key=lambda entry: entry[:2])]
