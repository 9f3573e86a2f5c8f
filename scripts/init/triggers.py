"""The triggers' files follow the environments: a job of deliver.yml, a step of deliver.yaml each.

A job is made from one that is there: what names the environment and what it waits for differs.
Pure: text goes in, text comes out.
"""

from __future__ import annotations

import re

from scripts.init.tree import Files

DELIVER = ".github/workflows/deliver.yml"
CLOUD_BUILD = "cloudbuild/deliver.yaml"
DEPENDABOT = ".github/dependabot.yml"
_STEP = re.compile(r"^  - id: ", re.MULTILINE)
_DELIVERS = re.compile(r"^      \./ship deliver --env ([a-z][a-z0-9-]*)\b", re.MULTILINE)
_WAITS = re.compile(r"^    waitFor: .*$", re.MULTILINE)
_OUTCOME = re.compile(r"^      \[ .*/outcome\)\" = delivered \].*\n", re.MULTILINE)
_DIGEST = re.compile(r"^(      digest=)", re.MULTILINE)
_TIMES = re.compile(r"^    timeout: (\d+)s", re.MULTILINE)
_LONGEST = 86_400  # seconds that Cloud Build gives a build at the most
_JOB = re.compile(r"^  [A-Za-z_][\w-]*:\n", re.MULTILINE)
_NAMED = re.compile(r"^    environment:\n      name: ([a-z][a-z0-9-]*)\b", re.MULTILINE)
_URL = re.compile(r"^(      url: .*\n)", re.MULTILINE)
_NEEDS = re.compile(r"^    needs: .*\n(?:    if: .*\n)?", re.MULTILINE)
_OUTPUTS = re.compile(r"^    outputs:\n      outcome: .*\n", re.MULTILINE)


def follow(files: Files, after: dict[str, str | None]) -> Files:
    """The files with deliver.yml's jobs for these environments.

    Args:
        files: the repository's files.
        after: environment -> the one that a commit serves in first, in order.
    """
    made = dict(files)
    for path, change in ((DELIVER, _deliver), (CLOUD_BUILD, _cloud_build)):
        if after and path in made:
            made[path] = change(made[path], after)
    return made


def moved(files: Files, before: str, now: str) -> Files:
    """The files with another folder that is built: Dependabot looks there."""
    text = files.get(DEPENDABOT)
    if text is None or before == now:
        return files
    line = re.compile(rf"^(    directory: )/{re.escape(before)}$", re.MULTILINE)
    return {**files, DEPENDABOT: line.sub(rf"\g<1>/{now}", text)}


def _deliver(text: str, after: dict[str, str | None]) -> str:
    head, jobs, body = text.partition("\njobs:\n")
    starts = [match.start() for match in _JOB.finditer(body)]
    blocks = [body[a:b] for a, b in zip(starts, [*starts[1:], len(body)], strict=True)]
    there: dict[str, str] = {}
    for block in blocks:
        if found := _NAMED.search(block):
            there[found[1]] = block
    if not there or [*there] == [*after]:
        return text
    old = next(iter(there))
    first = next(iter(after))
    rest = [block for block in blocks if block not in there.values()]
    rest = [re.sub(rf"(--env ){old}\b", rf"\g<1>{first}", block) for block in rest]
    made = [_job(there, env, before, env in after.values()) for env, before in after.items()]
    whole = "\n".join(block.rstrip("\n") + "\n" for block in [*rest, *made])
    return head + jobs + body[: starts[0]] + whole


def _job(there: dict[str, str], env: str, before: str | None, awaited: bool) -> str:
    """The job that delivers to one environment."""
    names = [*there]
    old = env if env in there else names[-1] if before else names[0]
    block = re.sub(rf"(?<!\w){old}(?![\w-])", env, there[old])
    block = re.sub(rf"^(    name: ){old.capitalize()}$", rf"\g<1>{env.capitalize()}", block,
                   flags=re.MULTILINE)  # fmt: skip
    needs = "    needs: build\n"
    if before:
        needs = (
            f"    needs: [build, {before}]\n"
            f"    if: ${{{{ needs.{before}.outputs.outcome == 'delivered' }}}}\n"
        )
    block = _NEEDS.sub(needs, block, count=1)
    block = _OUTPUTS.sub("", block, count=1)
    if awaited:
        outputs = "    outputs:\n      outcome: ${{ steps.deliver.outputs.outcome }}\n"
        block = _URL.sub(lambda match: match[1] + outputs, block, count=1)
    return block


def _cloud_build(text: str, after: dict[str, str | None]) -> str:
    """cloudbuild/deliver.yaml with a step for each environment."""
    starts = [match.start() for match in _STEP.finditer(text)]
    if not starts:
        return text
    tail = re.search(r"^(?=[a-zA-Z])", text[starts[-1] :], re.MULTILINE)
    end = starts[-1] + tail.start() if tail else len(text)
    blocks = [text[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
    there = {found[1]: block for block in blocks if (found := _DELIVERS.search(block))}
    if not there or [*there] == [*after]:
        return text
    old, first = next(iter(there)), next(iter(after))
    rest = [block for block in blocks if block not in there.values()]
    rest = [re.sub(rf"(--env ){old}\b", rf"\g<1>{first}", block) for block in rest]
    steps = [*rest, *(_step(there, env, before) for env, before in after.items())]
    whole = "".join(block.rstrip("\n") + "\n\n" for block in steps)
    seconds = min(sum(int(time) for time in _TIMES.findall(whole)), _LONGEST)
    ending = re.sub(r"^timeout: \d+s", f"timeout: {seconds}s", text[end:], flags=re.MULTILINE)
    return text[: starts[0]] + whole + ending


def _step(there: dict[str, str], env: str, before: str | None) -> str:
    """The step that delivers to one environment."""
    names = [*there]
    old = env if env in there else names[-1] if before else names[0]
    block = re.sub(rf"(?<![\w]){old}(?![\w-])", env, there[old])
    block = _WAITS.sub(f"    waitFor: [{before or 'build'}]", block, count=1)
    block = _OUTCOME.sub("", block, count=1)
    if before:
        outcome = f'"$(cat .shipway/outputs/{before}/outcome)"'
        line = f"      [ {outcome} = delivered ] || exit 0 # a newer commit's turn\n"
        block = _DIGEST.sub(lambda match: line + match[1], block, count=1)
    return block
