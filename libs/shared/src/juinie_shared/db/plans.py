"""Settings of sessions that tell Postgres how to plan what is asked in them, for `open_pool`.

Juinie's load-bearing statements read along known indexes, and no further than they are asked to. What statistics say of a table that was
empty when they were made, or for which there are none yet, is no reason to read all of it.
"""

ALONG_INDEXES = {"enable_bitmapscan": "off", "enable_seqscan": "off", "jit": "off"}
ONE_PLAN = ALONG_INDEXES | {"plan_cache_mode": "force_generic_plan"}
"""For sessions whose statements have one good way, however much there is: planned once, and then only run."""
IN_ORDER = ONE_PLAN | {"enable_sort": "off"}
"""For statements that want the first of each of many: read in the order of an index, whatever little there is thought to be to sort."""
