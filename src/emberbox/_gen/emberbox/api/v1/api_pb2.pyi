from emberbox._gen.emberbox.orchestrator.v1 import orchestrator_pb2 as _orchestrator_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResumeSandboxRequest(_message.Message):
    __slots__ = ("sandbox_id", "port", "traffic_access_token", "envd_access_token")
    SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ENVD_ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sandbox_id: str
    port: int
    traffic_access_token: str
    envd_access_token: str
    def __init__(self, sandbox_id: _Optional[str] = ..., port: _Optional[int] = ..., traffic_access_token: _Optional[str] = ..., envd_access_token: _Optional[str] = ...) -> None: ...

class ResumeSandboxResponse(_message.Message):
    __slots__ = ("node_id", "execution_id", "orchestrator_address", "data_address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    ORCHESTRATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    execution_id: str
    orchestrator_address: str
    data_address: str
    def __init__(self, node_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., orchestrator_address: _Optional[str] = ..., data_address: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _orchestrator_pb2.ServiceInfoResponse
    def __init__(self, info: _Optional[_Union[_orchestrator_pb2.ServiceInfoResponse, _Mapping]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("draining",)
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    def __init__(self, draining: _Optional[bool] = ...) -> None: ...
