"""What tests of every part share. There are four ways to reach the server; take the first that shows what is tested.

1. `serve` (fixture of tests/api): the application in the test's own event loop, over ASGI, with stand-in models.
2. `serve_live` (fixture of tests/api), or `live.LiveServer` around an application: the same behind a real socket, in a
   thread, for what a connection or a client's library does; the test can look into its engine.
3. `server` (fixture): the real command in a process of its own with the embedded checkpoints, shared by all tests.
4. `start_server` (fixture): the same with settings of its own, for one test.

`raw_client.RawClient` sends bytes that no client's library would send. `hub.MockHub` is a Hugging Face hub without a
network. `pictures` has pictures in the encodings that requests have, `scenes` the rendered scenes of the evaluation.
"""
