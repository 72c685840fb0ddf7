"""What users may ask the product to do: one frozen request for each action, with everything that a surface says of it.

A request says its fields with type, default, limit and one sentence of help, the role that it needs and the service
that does it. The command line, the operators, the trigger forms, the routes and the client are made from it. Standard
library only, since every DAG file that is parsed comes by here. Imports ``settings``, ``entities`` and ``errors``.
"""
