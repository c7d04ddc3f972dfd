"""An OpenAI-compatible endpoint over replicas that run on the network: keys, hard budgets, routing, failover, usage.

| module     | what                                                                             |
|------------|----------------------------------------------------------------------------------|
| `requests` | pure: what a request may say, what it can cost at most, errors in OpenAI's shape |
| `routing`  | pure: which replica is asked next                                                |
| `splice`   | pure: one answer out of the streams of several replicas                          |
| `books`    | API keys and what they spent, on disk                                            |
| `replicas` | how a replica is reached: a job's port, or a url                                 |
| `relay`    | asks one replica, then another, until an answer is whole                         |
| `app`      | the routes                                                                       |

A customer of `minga.client`. Rule: nothing is ignored in silence, and nobody spends more than a key's budget.
"""
