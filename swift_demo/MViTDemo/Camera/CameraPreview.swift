@preconcurrency import AVFoundation
import SwiftUI
import UIKit

/// The camera's live picture, upright however the device is held.
struct CameraPreview: UIViewRepresentable {
  let camera: Camera

  func makeUIView(context: Context) -> PreviewView {
    let view = PreviewView()
    view.show(camera)
    return view
  }

  func updateUIView(_ view: PreviewView, context: Context) {}
}

/// A view whose layer is the preview.
final class PreviewView: UIView {
  private var coordinator: AVCaptureDevice.RotationCoordinator?
  private var observation: NSKeyValueObservation?

  override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }

  func show(_ camera: Camera) {
    guard let layer = layer as? AVCaptureVideoPreviewLayer else { return }
    layer.session = camera.session
    layer.videoGravity = .resizeAspectFill
    isAccessibilityElement = true
    accessibilityLabel = localized("Camera picture")
    guard let device = camera.device else { return }
    let coordinator = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: layer)
    self.coordinator = coordinator
    observation = coordinator.observe(
      \.videoRotationAngleForHorizonLevelPreview, options: [.initial, .new]
    ) { [weak self] coordinator, _ in
      // Frames follow the preview's angle, so that overlay and preview stay congruent.
      let angle = coordinator.videoRotationAngleForHorizonLevelPreview
      camera.rotateFrames(by: angle)
      Task { @MainActor in self?.rotatePreview(by: angle) }
    }
  }

  private func rotatePreview(by angle: CGFloat) {
    guard let connection = (layer as? AVCaptureVideoPreviewLayer)?.connection,
      connection.isVideoRotationAngleSupported(angle)
    else { return }
    connection.videoRotationAngle = angle
  }
}
