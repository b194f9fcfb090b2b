"""`doctor`: what this machine can do."""

from __future__ import annotations

import click


@click.command("doctor", epilog="Example: tunelm doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor_command(as_json: bool) -> None:
    """Show cores, memory, GPU, extras, keys (set or not), caches, and what each route can do."""
    from tunelm.doctor import examine

    found = examine()
    if as_json:
        import json

        click.echo(json.dumps(found))
        return

    def gib(size: int | None) -> str:
        return "unknown" if size is None else f"{size / 2**30:.1f} GiB"

    click.echo(f"Python {found['python']} on {found['platform']}")
    click.echo(f"cores: {found['cores']}")
    click.echo(f"memory: {gib(found['memory_bytes'])}, {gib(found['memory_free_bytes'])} free")
    click.echo(f"disk here: {gib(found['disk_free_bytes'])} free")
    gpus = [f"{g['name']} ({gib(g['memory_bytes'])})" for g in found["gpus"]]
    click.echo(f"GPU: {', '.join(gpus) or 'none found'}")
    for extra, state in found["extras"].items():
        absent = f"missing {', '.join(state['missing'])}: pip install 'tunelm[{extra}]'"
        click.echo(f"extra {extra}: {'installed' if state['installed'] else absent}")
    for package, version in found["versions"].items():
        click.echo(f"  {package} {version or 'not installed'}")
    for name, is_set in found["keys_set"].items():
        click.echo(f"key {name}: {'set' if is_set else 'not set'}")
    for cache in found["caches"]:
        click.echo(f"cache {cache['path']}: {gib(cache['bytes'])}")
    for route, state in found["routes"].items():
        click.echo(f"route {route}: {state}")
    for part, choice in (found["training"] or {}).items():
        why = f" ({choice['why']})" if choice["why"] else ""
        click.echo(f"training, {part.replace('_', ' ')}: {choice['value']}{why}")
    click.echo(f"vLLM: {found['vllm'] or 'not installed'}")
