// The virtual teacher: takes bookings from Redis, keeps them, and has the push hosts air them.
'use strict';

const VERSION = '3.1.0';

const config = require('./config/default.json');
const dealResult = require('./utils/dealResult');
const downloadJson = require('./utils/downloadJson');
const fileCRC64 = require('./utils/fileCRC64');
const sendHttpPost = require('./utils/send_http_post');
const logger = require('./utils/winstonLogger');

logger.info(`virtual teacher ${VERSION}`);
dealResult.listen(config, { downloadJson, fileCRC64, sendHttpPost });
