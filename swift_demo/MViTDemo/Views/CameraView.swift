import MViTCoreML
import SwiftUI

/// The live camera with its segmentation.
struct CameraView: View {
  let demo: DemoModel

  var body: some View {
    ZStack {
      // The preview connects to a session that has its camera already; before, there is nothing
      // whose rotation could be set.
      if demo.isCameraRunning {
        CameraPreview(camera: demo.camera)
          .overlay { SegmentationOverlay(demo: demo, contentMode: .fill) }
          .clipped()
      } else {
        ProgressView("Starting the camera…")
      }
    }
    .frame(maxWidth: .infinity, maxHeight: .infinity)
    .task { await demo.holdCamera() }
    .task(id: demo.frameSetting) { await demo.answerFrames() }
  }
}
