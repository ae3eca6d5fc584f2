"""How Sitrep is run: the command line, the demo and the embedded services it may start.

- the command line: `cli`, one `commands_*` for each group of commands, `options`, `failure`, `render`, `replaying`
- `sitrep demo`: `demo`, `crew` (its workers), `sample_posts`, `feeding`, `gallery`, `board` (what came back);
  on the terminal `live`, `panels`; as a page `exhibit`, `report`, `overlay`, `page_server`
- Kafka and Redis for trying: `embedded`, `services`, `kafka_node`, `probes`; processes: `child_process`, `launcher`
- `readme` fills the README's generated parts
"""
