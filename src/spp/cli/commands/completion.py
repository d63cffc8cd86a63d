"""spp completion: what lets a shell complete commands, options, groups, sweeps and keys.

The script looks at the store's folders itself: starting Python for every press of Tab would take too long.
"""

import argparse
import json
import shlex

from spp.cli.parsers import COMMANDS, build_parsers
from spp.cli.report_names import REPORTS
from spp.locations import CONF

_OF_SWEEPS = ("status", "watch", "cancel", "retry", "rm", "report", "verify", "sync", "extract")
_OF_STAGES = ("logs", "diff", "why", "unlock", "export")
_TEXT_FIELDS = ("budget.values", "seed", "paths.data", "paths.store", "data.root", "name", "tags", "note")

_BASH = """\
# spp: completion for {shell}. Put into your profile: eval "$(spp completion {shell})"
{head}_spp_words() {{
    case $1 in
{options}
    esac
}}
_spp_store() {{
    local word
    for word in "${{COMP_WORDS[@]}}"; do
        case $word in paths.store=*) echo "${{word#paths.store=}}"; return;; esac
    done
    case $COMP_LINE in *paths.store=*) word=${{COMP_LINE#*paths.store=}}; echo "${{word%% *}}"; return;; esac
    echo "${{SPP_STORE:-store}}"
}}
_spp_names() {{
    local path
    for path in "$@"; do [ -e "$path" ] && printf '%s\\n' "${{path##*/}}"; done
}}
_spp() {{
    local line=${{COMP_LINE:0:$COMP_POINT}} current words="" store
    current=${{line##* }}
    local command=${{COMP_WORDS[1]}}
    COMPREPLY=()
    if [ "$COMP_CWORD" -le 1 ]; then
        COMPREPLY=($(compgen -W {commands} -- "$current"))
        return
    fi
    store=$(_spp_store)
    case $current in
{groups}
        *=*) return;;
        -*) words=$(_spp_words "$command");;
        *)
            case $command in
                run|plan) words={fields};;
                report) words={reports}\\ $(_spp_names "$store"/sweeps/*);;
                {of_sweeps}) words=$(_spp_names "$store"/sweeps/*);;
                {of_stages}) words=$(_spp_names "$store"/stages/*/[0-9a-f]*);;
                help) words={commands};;
                completion) words="bash zsh";;
            esac;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    # Where the shell takes = for the end of a word, it wants what comes after it.
    case $current in
        *=*) case $COMP_WORDBREAKS in *=*)
            COMPREPLY=("${{COMPREPLY[@]#${{current%=*}}=}}");; esac;;
    esac
    case $COMPREPLY in *=) type compopt >/dev/null 2>&1 && compopt -o nospace 2>/dev/null;; esac
    return 0
}}
complete -F _spp spp
"""
_ZSH_HEAD = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(shell: str, *, as_json: bool) -> int:
    """Print the script for bash or zsh, which takes bash's."""
    groups = {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir()
    }
    script = _BASH.format(
        shell=shell,
        head=_ZSH_HEAD if shell == "zsh" else "",
        commands=_quoted(COMMANDS),
        fields=_quoted([f"{name}=" for name in (*groups, *_TEXT_FIELDS)]),
        reports=_quoted([*REPORTS, "all"]),
        of_sweeps="|".join(name for name in _OF_SWEEPS if name != "report"),
        of_stages="|".join(_OF_STAGES),
        groups="\n".join(
            f"        {name}=*) words={_quoted([f'{name}={choice}' for choice in choices])};;"
            for name, choices in groups.items()
        ),
        options="\n".join(
            f"        {name}) echo {_quoted(_options(parser))};;" for name, parser in build_parsers().items()
        ),
    )
    print(json.dumps({"shell": shell, "script": script}, indent=1) if as_json else script, end="")
    return 0


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [
        option
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
        if option.startswith("--")
    ]


def _quoted(words: object) -> str:
    assert isinstance(words, list | tuple | dict)
    return shlex.quote(" ".join(words))
