"""Our own transcoding servers, reached by SSH."""
