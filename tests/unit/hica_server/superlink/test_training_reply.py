from flwr.app import MetricRecord, RecordDict

from hica_server.superlink.training_reply import training_reply


def test_it_says_its_content_and_is_made_outside_a_running_app():
    content = RecordDict({"metrics": MetricRecord({"num-examples": 2.0})})
    message = training_reply(content)
    assert message.content is content
    assert message.metadata.message_type == "train"
